"""One round of jobs: start what devices allow, wait for all of it, then judge the phase by code."""

import asyncio
import shutil
from collections.abc import Callable
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt

from nightsmith.agent import dossier, judging, morning, pruning
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.services import Services
from nightsmith.agent.state import State, Step, WaitState
from nightsmith.agent.work import device_kind, job_limit_s, job_spec, next_stage, role_of, warm_up
from nightsmith.evals.types import Decision, Verdict
from nightsmith.record import events
from nightsmith.record.errors import BudgetSpent, NightsmithError, NoDevice
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolError
from nightsmith.trainer import jobs
from nightsmith.trainer.spec import RunStatus

Go = Command[Any]
MAX_STARTS = 3
"""Times that a job whose process dies may be started: it goes on from its last checkpoint."""
FREE_DISK_BYTES = 200 * 2**20
"""Free space below which a job that met a full disk is not started again."""


async def start(state: State, runtime: Runtime[Services]) -> Go:
    """Start queued jobs while devices are free. Starting twice is starting once: a job's key follows from its step.

    A refused start ends the study after the jobs that already run. Raises NotApproved, so that it waits for a person.
    """
    ws, study = runtime.context.ws, state["study"]
    plan, ended = dossier.study_plan(ws, study), _ended(ws, state)
    await asyncio.to_thread(warm_up)
    queue, steps = [] if ended else list(state["queue"]), dict(state["steps"])
    running: list[str] = []
    while queue and len(running) < plan.parallel:
        try:
            key = await asyncio.to_thread(_start, ws, study, queue[0], plan)
        except NoDevice:
            break
        except (BudgetSpent, ToolError) as refusal:
            queue, ended = [], str(refusal)
            break
        running.append(key)
        steps[key] = queue.pop(0)
    update = {"queue": queue, "running": running, "steps": steps, "ended": ended}
    if ended and not running:
        return Command(goto="judge", update=update)
    if state["phase"] == "baseline":  # MLflow's first use takes seconds: spent while the first jobs train
        await asyncio.to_thread(_project, ws, study)
    return Command(goto=[Send("wait", {"study": study, "key": key}) for key in running or [""]], update=update)


def _start(ws: Workspace, study: str, step: Step, plan: StudyPlan) -> str:
    return jobs.start(
        ws, job_spec(ws, study, step), study=study, step=step["step"], trial=step["trial"], role=role_of(step, plan),
        time_limit_s=job_limit_s(ws, study, plan), device_kind=device_kind(),
    )  # fmt: skip


async def wait(state: WaitState, runtime: Runtime[Services]) -> dict[str, Any]:
    """One branch a job: sleeps in an interrupt until the driver sees the exit record."""
    if not state["key"]:
        interrupt({"kind": "device"})
        return {}
    while jobs.poll(runtime.context.ws, state["key"]) is None:
        interrupt({"kind": "job", "key": state["key"]})
    return {}


async def judge(state: State, runtime: Runtime[Services]) -> Go:
    """Round by round: interrupted jobs go on, next stages and queued jobs start, a finished phase is judged by code."""
    ws, study = runtime.context.ws, state["study"]
    ended, plan = _ended(ws, state), dossier.study_plan(ws, study)
    again = [state["steps"][key] for key in state["running"] if _may_go_on(ws, study, key)]
    stages = [step for key in state["running"] if (step := next_stage(ws, plan, key, state["steps"][key]))]
    if not ended and (again or stages or state["queue"]):
        return Command(goto="start", update={"queue": [*again, *stages, *state["queue"]], "running": []})
    go = await asyncio.to_thread(_phases[state["phase"]], ws, {**state, "ended": ended})
    await asyncio.to_thread(_project, ws, study)
    known: Any = go.update or {}
    return Command(goto=go.goto, update={"ended": ended, **known})


def _ended(ws: Workspace, state: State) -> str:
    return state["ended"] or (dossier.STOPPED if dossier.stop_requested(ws, state["study"]) else "")


def _may_go_on(ws: Workspace, study: str, key: str) -> bool:
    """Whether a job was cut off and may go on from its last checkpoint; one that was pruned may not.

    Raises NightsmithError while the disk is still full: the study is paused, not spoilt.
    """
    if any(key == pruned for pruned, _ in pruning.reasons(ws, study).values()):
        return False
    result = jobs.poll(ws, key)
    status = result.status if result else None
    if status is RunStatus.DISK_FULL and shutil.disk_usage(ws.root).free < FREE_DISK_BYTES:
        raise NightsmithError(
            f"The disk is full ({ws.root}); job {key} keeps its last checkpoint. Free some space, then go on with "
            f"`nightsmith resume {study}`."
        )
    died = status in (RunStatus.KILLED, RunStatus.HUNG, RunStatus.DISK_FULL) and jobs.num_starts(ws, key) < MAX_STARTS
    smaller = status is RunStatus.OUT_OF_MEMORY and jobs.may_go_on(ws, key)
    return status is RunStatus.STOPPED or died or smaller


def _project(ws: Workspace, study: str) -> None:
    """Show the study in MLflow. What MLflow cannot take is said and made up for later; it is no truth of ours."""
    try:
        morning.publish(ws, study)
    except Exception as error:
        events.append(ws, study, "warning", data={"reason": f"MLflow was not updated: {error}"})


def _after_baseline(ws: Workspace, state: State) -> Go:
    if state["ended"]:
        return Command(goto="report")
    if failed := judging.failure(ws, state["study"]):
        return Command(goto="report", update={"ended": f"The baseline failed: {failed}"})
    if state["phase"] == "baseline" and not judging.has_fixed_reference(ws, state["study"]):
        return Command(goto="calibrate", update={"running": []})
    events.append(ws, state["study"], "planned", data=judging.noise(ws, state["study"]))
    return Command(goto="propose", update={"phase": "trials", "next_trial": 1, "running": []})


def _after_trials(ws: Workspace, state: State) -> Go:
    study = state["study"]
    verdicts = {number: _screened(ws, study, number) for number in state["proposed"]}
    for number, verdict in verdicts.items():
        events.append(ws, study, "verdict", trial=number, data=_judged(verdict))
    if state["ended"]:
        return Command(goto="report")
    reached = any(v.promising and v.meets_target for v in verdicts.values())
    return Command(goto="confirm" if reached and judging.has_threshold(ws, study) else "propose")


def _screened(ws: Workspace, study: str, number: int) -> Verdict:
    """The verdict on a trial's dev run; one that was pruned has none, and is no evidence."""
    pruned = pruning.reasons(ws, study).get(number)
    return judging.unverified(ws, study, number, pruned[1]) if pruned else judging.screen(ws, study, number)


def _judged(verdict: Verdict) -> dict[str, Any]:
    """What an event tells of a verdict."""
    return verdict.model_dump(mode="json", include={"decision", "metric", "estimate", "interval", "reason"})


def _after_confirmation(ws: Workspace, state: State) -> Go:
    study, number = state["study"], state["candidate"]
    verdict = judging.confirm(ws, study, number)
    events.append(ws, study, "confirmation", trial=number, data=_judged(verdict))
    update: dict[str, Any] = {"confirmed": [*state["confirmed"], number]}
    if state["ended"]:
        return Command(goto="report", update=update)
    if judging.has_threshold(ws, study) and verdict.meets_target and verdict.decision is not Decision.REJECTED:
        return Command(goto="unseal", update=update | {"winner": number})
    return Command(goto="propose", update=update)


def _after_unsealing(ws: Workspace, state: State) -> Go:
    del ws, state  # claims are made from the result files when the outcome is drawn
    return Command(goto="report")


_phases: dict[str, Callable[[Workspace, State], Go]] = {
    "baseline": _after_baseline,
    "calibration": _after_baseline,
    "trials": _after_trials,
    "confirmation": _after_confirmation,
    "sealed": _after_unsealing,
    "measured": _after_unsealing,
}
