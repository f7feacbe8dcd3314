"""The end of a study: confirm by fresh seeds, open the seal once, say what came out."""

import asyncio
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command

from nightsmith.agent import dossier, judging, morning, untrained
from nightsmith.agent import report as reporting
from nightsmith.agent.materials import manifest_of, sealed_folds
from nightsmith.agent.services import Services
from nightsmith.agent.state import State
from nightsmith.agent.work import measured_trial_s, seconds_left, seconds_to_end, seconds_to_unseal, step_of, time_for
from nightsmith.evals import seal
from nightsmith.evals.types import Outcome
from nightsmith.record import events, studies
from nightsmith.record.errors import Refused
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import tracking

Go = Command[Any]


async def confirm(state: State, runtime: Runtime[Services]) -> Go:
    """Queue fresh seeds of the best promising trial; without one (or without time or alpha) the study ends.

    Where a trial cannot be confirmed, its checkpoint can still be claimed: what meets the targets on dev is unsealed.
    """
    ws, study = runtime.context.ws, state["study"]
    plan, confirmed = dossier.study_plan(ws, study), state["confirmed"]
    number = judging.best_promising(ws, study, confirmed)
    if number is None or plan.max_confirmations == 0:
        return _unsealing(ws, state, "")
    left = seconds_left(ws, study)
    if left is not None and left < seconds_to_end(ws, study, plan, measured_trial_s(ws, study, plan)):
        return _unsealing(ws, state, f"{left:.0f} s are left: too little to confirm trial {number}.")
    try:
        judging.confirmation_right(ws, study, number)
    except Refused as refusal:
        return _unsealing(ws, state, str(refusal))
    first = 1000 * (len(confirmed) + 1)
    queue = [step_of("confirmation", number, first + i) for i in range(plan.seeds)]
    update: dict[str, Any] = {"phase": "confirmation", "candidate": number, "queue": queue, "running": [], "steps": {}}
    return Command(goto="start", update=update)


def _unsealing(ws: Workspace, state: State, reason: str) -> Go:
    """Nothing (more) is confirmed: unseal what meets the targets on dev (the baseline too), or an open goal's best.

    Args:
        ws: workspace.
        state: of the graph.
        reason: why a promising trial was not confirmed; empty where there was none.
    """
    study = state["study"]
    threshold = judging.has_threshold(ws, study)
    best = judging.meeting_targets(ws, study) if threshold else judging.best_promoted(ws, study)
    left, plan = seconds_left(ws, study), dossier.study_plan(ws, study)
    late = bool(reason) and left is not None and left < seconds_to_unseal(ws, study, plan)
    if best is None or state["winner"] is not None or late:
        return Command(goto="report", update={"ended": reason or _cut_short(ws, state)})
    if reason:
        alone = "" if best == judging.best_promoted(ws, study) else f" Of trial {best} the checkpoint alone is claimed."
        events.append(ws, study, "warning", trial=best, data={"reason": f"{reason}{alone}"})
    return Command(goto="unseal", update={"winner": best})


def _cut_short(ws: Workspace, state: State) -> str:
    """That time ran out before the trials did; empty where it did not."""
    study, plan = state["study"], dossier.study_plan(ws, state["study"])
    left = seconds_left(ws, study)
    if left is None or state["next_trial"] > plan.max_trials or time_for(ws, study, plan) > 0:
        return ""
    confirmed = "its confirmation" if plan.max_confirmations else "the sealed evaluation"
    return f"{left:.0f} s were left: too little for one more trial, {confirmed} and the report."


async def unseal(state: State, runtime: Runtime[Services]) -> Go:
    """Take the one look at the sealed split: the winner's best checkpoint, and the baseline's beside it."""
    ws, study = runtime.context.ws, state["study"]
    number = state["winner"]
    assert number is not None
    folds = sealed_folds(manifest_of(ws, study))
    try:
        fold = seal.take_look(ws, folds, study)
    except Refused as refusal:
        return Command(goto="report", update={"ended": str(refusal)})
    events.append(ws, study, "unsealed", trial=number, data={"digest": fold[:12], "fold": folds.index(fold)})
    keys = {trial: judging.best_seed(ws, study, trial) for trial in (number, 0)}
    queue = [step_of("sealed", trial, 0, checkpoint_of=key, fold=folds.index(fold)) for trial, key in keys.items()]
    return Command(goto="start", update={"phase": "sealed", "queue": queue, "running": [], "steps": {}})


async def report(state: State, runtime: Runtime[Services]) -> dict[str, Any]:
    """Fix the outcome, project everything into MLflow, write the report."""
    ws, study = runtime.context.ws, state["study"]
    await asyncio.to_thread(conclude, ws, study, state)
    return {}


def conclude(ws: Workspace, study: str, state: State) -> None:
    """Outcome into the record, figures into MLflow, report onto disk. Doing it twice changes nothing."""
    row, ended = studies.get(ws, study), state["ended"]
    detail: dict[str, Any] = {"reason": ended}
    if row.state == "blocked" or row.outcome == Outcome.BLOCKED:
        outcome = Outcome.BLOCKED
    elif row.spec is None:
        outcome = Outcome.STOPPED
    elif dossier.goal_spec(ws, study).intent != "train":
        outcome, detail = untrained.outcome(ws, study, ended)
    else:
        outcome, detail = judging.outcome(ws, study, state["winner"], ended)
    studies.finish(ws, study, outcome.value, detail)
    if not any(event.kind == "outcome" for event in events.read(ws, study=study)):
        events.append(ws, study, "outcome", data={"outcome": outcome.value, "reason": detail["reason"]})
    path = reporting.write(ws, study)
    tracking.attach_report(ws, study, path)
    morning.publish(ws, study)
    events.append(ws, study, "report", data={"path": str(path)})
