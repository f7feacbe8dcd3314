"""What is tried: the baseline and its seeds, then what the planner proposes, checked before it may start."""

import asyncio
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command

from nightsmith.agent import dossier, judging, ledger, proposing
from nightsmith.agent.materials import prepare_data
from nightsmith.agent.services import Services
from nightsmith.agent.state import State, Step
from nightsmith.agent.work import step_of, time_for, warm_up
from nightsmith.record import events, studies
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.base import ToolError

Go = Command[Any]


async def baseline(state: State, runtime: Runtime[Services]) -> Go:
    """Build the data; queue trial 0, and calibration seeds beside it on devices that would idle.

    A model that is fine-tuned is the baseline as it is: it is evaluated once, and has no seeds.
    """
    ws, study = runtime.context.ws, state["study"]
    await asyncio.to_thread(warm_up)
    try:
        await asyncio.to_thread(prepare_data, ws, study, runtime.context.cwd)
    except NightsmithError as refusal:
        studies.set_state(ws, study, "blocked", {"reason": str(refusal)})
        return Command(goto="report", update={"ended": str(refusal)})
    plan = dossier.study_plan(ws, study)
    studies.add_trial(ws, study, 0, proposing.baseline_plan(plan).model_dump(mode="json"))
    beside = 0 if plan.model else min(plan.parallel, plan.seeds) - 1
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
    if dossier.stop_requested(ws, study):
        return Command(goto="report", update={"ended": dossier.STOPPED})
    plan, number = dossier.study_plan(ws, study), state["next_trial"]
    room = min(plan.parallel, plan.max_trials + 1 - number, time_for(ws, study, plan))
    if room < 1:
        return Command(goto="confirm")
    proposed = f"proposed-{number}-{len(state['confirmed'])}"  # after a confirmation the planner is asked again
    if dossier.load(ws, study, proposed) is None:  # saved whole, so that a repeated step records the same trials
        plans, transcript = await proposing.propose(runtime.context, study, number, room)
        ledger.keep_transcript(ws, study, "propose", transcript)
        dossier.save(ws, study, proposed, [plan.model_dump(mode="json") for plan in plans])
    numbers = _record(ws, study, number, dossier.load(ws, study, proposed))
    if not numbers:
        return Command(goto="confirm")
    return Command(goto="check", update={"proposed": numbers, "next_trial": max(numbers) + 1})


def _record(ws: Workspace, study: str, number: int, plans: list[dict[str, Any]]) -> list[int]:
    """Trials enter the record as one row each; a repeated step finds them there."""
    known = {row.number for row in studies.trials(ws, study)}
    trials = list(enumerate((plan for plan in plans if plan["move"] not in ("confirm", "stop")), number))
    for index, plan in trials:
        if index not in known:
            studies.add_trial(ws, study, index, plan)
            said = {"hypothesis": plan["hypothesis"], "change": plan["change"]}
            events.append(ws, study, "trial_proposed", trial=index, data=said)
    return [index for index, _ in trials]


async def check(state: State, runtime: Runtime[Services]) -> Go:
    """Only valid calls go on to be started; the rest is refused, and said."""
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
