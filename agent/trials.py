"""The loop: measure the baseline and its noise, propose, check the envelope, start, wait, judge."""

import asyncio
from collections.abc import Callable
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt

from nightsmith.agent import dossier, judging, proposing
from nightsmith.agent.plan import TrialPlan
from nightsmith.agent.services import Services
from nightsmith.agent.state import State, Step, WaitState
from nightsmith.agent.work import job_limit_s, job_spec, prepare_data, step_of, time_for
from nightsmith.record import events, studies
from nightsmith.record.errors import BudgetSpent, NightsmithError, NoDevice, NotApproved
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.base import ToolError
from nightsmith.trainer import jobs, tracking
from nightsmith.trainer.spec import RunStatus

Go = Command[Any]
MAX_STARTS = 3
"""Times that one job may be started: interrupted ones go on from their last checkpoint."""


async def baseline(state: State, runtime: Runtime[Services]) -> Go:
    """Build the data; queue trial 0, and calibration seeds beside it on devices that would idle."""
    ws, study = runtime.context.ws, state["study"]
    try:
        await asyncio.to_thread(prepare_data, ws, study, runtime.context.cwd)
    except NightsmithError as refusal:
        studies.set_state(ws, study, "blocked", {"reason": str(refusal)})
        return Command(goto="report", update={"ended": str(refusal)})
    plan = dossier.study_plan(ws, study)
    studies.add_trial(ws, study, 0, proposing.baseline_plan(plan).model_dump(mode="json"))
    beside = min(plan.parallel, plan.seeds) - 1
    queue = [step_of("baseline", 0, 0), *(step_of("calibration", 0, seed) for seed in range(1, 1 + beside))]
    return Command(goto="start", update={"phase": "baseline", "queue": queue, "running": [], "steps": {}})


async def calibrate(state: State, runtime: Runtime[Services]) -> Go:
    """Queue the seeds that are still missing for the noise of the baseline."""
    plan = dossier.study_plan(runtime.context.ws, state["study"])
    done = {step["seed"] for step in state["steps"].values()}
    missing = [step_of("calibration", 0, seed) for seed in range(plan.seeds) if seed not in done]
    if not missing:
        return Command(goto="propose", update={"phase": "trials", "next_trial": 1})
    return Command(goto="start", update={"phase": "calibration", "queue": missing})


async def propose(state: State, runtime: Runtime[Services]) -> Go:
    """The planner proposes the next trials, as many as run side by side."""
    ws, study = runtime.context.ws, state["study"]
    plan = dossier.study_plan(ws, study)
    number = state["next_trial"]
    fits = time_for(ws, study, plan)
    room = min(plan.parallel, plan.max_trials + 1 - number, fits)
    if room < 1:
        return Command(goto="confirm")
    numbers = [t.number for t in studies.trials(ws, study) if t.number >= number]
    if not numbers:
        moves, transcript = await proposing.propose(runtime.context, study, number, room)
        dossier.add_transcript(ws, study, "propose", transcript)
        numbers = _record(ws, study, number, moves)
    if not numbers:
        return Command(goto="confirm")
    return Command(goto="check", update={"proposed": numbers, "next_trial": max(numbers) + 1})


def _record(ws: Workspace, study: str, number: int, moves: list[TrialPlan]) -> list[int]:
    """Trials enter the record as one row each; a repeated step finds them there."""
    numbers: list[int] = []
    for offset, plan in enumerate(m for m in moves if m.move not in ("confirm", "stop")):
        studies.add_trial(ws, study, number + offset, plan.model_dump(mode="json"))
        change = {"hypothesis": plan.hypothesis, "change": plan.change}
        events.append(ws, study, "trial_proposed", trial=number + offset, data=change)
        numbers.append(number + offset)
    return numbers


async def check(state: State, runtime: Runtime[Services]) -> Go:
    """Only valid calls of an approved kind go on; the rest is refused, and said."""
    ws, study = runtime.context.ws, state["study"]
    plan = dossier.study_plan(ws, study)
    queue: list[Step] = []
    for row in studies.trials(ws, study):
        if row.number not in state["proposed"]:
            continue
        try:
            for call in proposing.trial_plan(row).calls:
                registry.validate(call)
        except ToolError as refusal:
            events.append(ws, study, "refused", trial=row.number, data={"reason": str(refusal)})
            judging.unverified(ws, study, row.number, str(refusal))
            continue
        queue.append(step_of("trial", row.number, plan.seeds + row.number))
    if not queue:
        return Command(goto="propose")
    return Command(goto="start", update={"phase": "trials", "queue": queue, "running": [], "steps": {}})


async def start(state: State, runtime: Runtime[Services]) -> Go:
    """Start queued jobs while devices are free. Starting twice is starting once: a job's key follows from its step."""
    ws, study = runtime.context.ws, state["study"]
    plan = dossier.study_plan(ws, study)
    queue, steps = list(state["queue"]), dict(state["steps"])
    running: list[str] = []
    while queue and len(running) < plan.parallel:
        step = queue[0]
        try:
            spec = job_spec(ws, study, step)
            key = await asyncio.to_thread(
                jobs.start, ws, spec, study=study, step=step["step"], trial=step["trial"], role=step["role"],
                time_limit_s=job_limit_s(ws, study, plan),
            )  # fmt: skip
        except NoDevice:
            break
        except (BudgetSpent, NotApproved) as refusal:
            return Command(
                goto="judge", update={"queue": [], "running": running, "steps": steps, "ended": str(refusal)}
            )
        running.append(key)
        steps[key] = queue.pop(0)
    if state["phase"] == "baseline":  # MLflow's first use takes seconds: spent while the first jobs train
        await asyncio.to_thread(tracking.project, ws, study)
    waits = [Send("wait", {"study": study, "key": key}) for key in running or [""]]
    return Command(goto=waits, update={"queue": queue, "running": running, "steps": steps})


async def wait(state: WaitState, runtime: Runtime[Services]) -> dict[str, Any]:
    """One branch a job: sleeps in an interrupt until the driver sees the exit record."""
    if not state["key"]:
        interrupt({"kind": "device"})
        return {}
    while jobs.poll(runtime.context.ws, state["key"]) is None:
        interrupt({"kind": "job", "key": state["key"]})
    return {}


async def judge(state: State, runtime: Runtime[Services]) -> Go:
    """Round by round: interrupted jobs go on, queued ones start, and a finished phase is judged by code."""
    ws, study = runtime.context.ws, state["study"]
    again = [state["steps"][key] for key in state["running"] if _interrupted(ws, key)]
    if not state["ended"] and (again or state["queue"]):
        return Command(goto="start", update={"queue": [*again, *state["queue"]], "running": []})
    go = await asyncio.to_thread(_phases[state["phase"]], ws, state)
    await asyncio.to_thread(tracking.project, ws, study)
    return go


def _interrupted(ws: Workspace, key: str) -> bool:
    """Whether a job was cut off and may go on from its last checkpoint."""
    result = jobs.poll(ws, key)
    cut_off = result is not None and result.status in (RunStatus.KILLED, RunStatus.STOPPED)
    return cut_off and jobs.num_starts(ws, key) < MAX_STARTS


def _after_baseline(ws: Workspace, state: State) -> Go:
    failed = judging.failure(ws, list(state["steps"]))
    if failed or state["ended"]:
        return Command(goto="report", update={"ended": state["ended"] or f"The baseline failed: {failed}"})
    return Command(goto="calibrate", update={"running": []})


def _after_calibration(ws: Workspace, state: State) -> Go:
    failed = judging.failure(ws, list(state["steps"]))
    if failed or state["ended"]:
        return Command(goto="report", update={"ended": state["ended"] or f"The calibration failed: {failed}"})
    events.append(ws, state["study"], "planned", data=judging.noise(ws, state["study"]))
    return Command(goto="propose", update={"phase": "trials", "next_trial": 1, "running": []})


def _after_trials(ws: Workspace, state: State) -> Go:
    study = state["study"]
    verdicts = {number: judging.screen(ws, study, number) for number in state["proposed"]}
    for number, verdict in verdicts.items():
        data = {"decision": verdict.decision.value, "reason": verdict.reason}
        events.append(ws, study, "verdict", trial=number, data=data)
    if state["ended"]:
        return Command(goto="report")
    reached = any(v.promising and v.meets_target for v in verdicts.values())
    return Command(goto="confirm" if reached and judging.has_threshold(ws, study) else "propose")


def _after_confirmation(ws: Workspace, state: State) -> Go:
    study, number = state["study"], state["candidate"]
    verdict = judging.confirm(ws, study, number)
    data = {"decision": verdict.decision.value, "reason": verdict.reason}
    events.append(ws, study, "confirmation", trial=number, data=data)
    update: dict[str, Any] = {"confirmed": [*state["confirmed"], number]}
    if state["ended"]:
        return Command(goto="report", update=update)
    if verdict.meets_target:
        return Command(goto="unseal", update=update | {"winner": number})
    return Command(goto="propose", update=update)


def _after_unsealing(ws: Workspace, state: State) -> Go:
    del ws, state  # claims are made from the result files when the outcome is drawn
    return Command(goto="report")


_phases: dict[str, Callable[[Workspace, State], Go]] = {
    "baseline": _after_baseline,
    "calibration": _after_calibration,
    "trials": _after_trials,
    "confirmation": _after_confirmation,
    "sealed": _after_unsealing,
}
