"""Goals that train nothing: after the approval their data are built, then models are measured as they are, once."""

import asyncio
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command

from nightsmith.agent import data_words, dossier, judging, measuring
from nightsmith.agent.materials import manifest_of, prepare_data, sealed_folds
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.services import Services
from nightsmith.agent.state import State
from nightsmith.agent.work import step_of, warm_up
from nightsmith.evals import judge, seal
from nightsmith.evals.types import Outcome, SuiteSpec
from nightsmith.record import events, studies
from nightsmith.record.errors import NightsmithError, Refused
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.spec import TrainSpec

Go = Command[Any]


async def prepare(state: State, runtime: Runtime[Services]) -> Go:
    """Build the data; a refusal (too few rows, a file that cannot be read) ends the study, with what would mend it."""
    ws, study = runtime.context.ws, state["study"]
    if dossier.stop_requested(ws, study):
        return Command(goto="report", update={"ended": dossier.STOPPED})
    try:
        await asyncio.to_thread(prepare_data, ws, study, runtime.context.cwd)
    except NightsmithError as refusal:
        studies.set_state(ws, study, "blocked", {"reason": str(refusal)})
        return Command(goto="report", update={"ended": str(refusal)})
    plan = dossier.study_plan(ws, study)
    return await asyncio.to_thread(_measure, ws, study, plan) if plan.model else Command(goto="report")


def _measure(ws: Workspace, study: str, plan: StudyPlan) -> Go:
    """Queue one evaluation a model; rows that a threshold is proven on are sealed, and may be looked at once."""
    folds = sealed_folds(manifest_of(ws, study))
    if folds:
        try:
            _require_unseen(ws, study, folds[0])
            fold = seal.take_look(ws, folds, study)
        except Refused as refusal:
            return Command(goto="report", update={"ended": f"{refusal} {_WITHOUT_LOOK}"})
        events.append(ws, study, "unsealed", data={"digest": fold[:12], "fold": folds.index(fold)})
    warm_up()
    role = "sealed" if folds else "measured"
    queue = [step_of(role, number, 0) for number in measuring.numbers(plan)]
    update: dict[str, Any] = {"phase": "measured", "queue": queue, "running": [], "steps": {}}
    return Command(goto="start", update=update)


def _require_unseen(ws: Workspace, study: str, fold: str) -> None:
    """Raise Refused where other studies have seen figures on these very rows, as dev rows that cost no look."""
    others = [row for row in jobs.rows(ws) if row.study != study]
    seen = [row for row in others if (suite := _suite(row)) and suite.data_digest == fold]
    if seen:
        raise Refused(
            f"These rows were evaluated already, first by job {seen[0].key} of {seen[0].study}: a threshold set "
            "after the figures are known is no proof. Name rows that nothing was evaluated on."
        )


def _suite(row: jobs.JobRow) -> SuiteSpec | None:
    return row.spec.dev_suite if isinstance(row.spec, TrainSpec) else row.spec.suite


_WITHOUT_LOOK = "Or leave the threshold out: figures with their intervals need no look."


def outcome(ws: Workspace, study: str, ended: str) -> tuple[Outcome, dict[str, Any]]:
    """How such a study ended, and the particulars for the report."""
    if ended or dossier.load(ws, study, "datasets") is None:
        return Outcome.STOPPED, {"reason": ended or dossier.STOPPED}
    plan = dossier.study_plan(ws, study)
    if plan.model is None:
        return Outcome.MET, {"reason": data_words.built(manifest_of(ws, study))}
    return _measured(ws, study, plan)


def _measured(ws: Workspace, study: str, plan: StudyPlan) -> tuple[Outcome, dict[str, Any]]:
    found = [judging.measured(ws, study, number) for number in measuring.numbers(plan)]
    if problem := next((each for each in found if isinstance(each, str)), ""):
        return Outcome.STOPPED, {"reason": f"The evaluation is no evidence: {problem}"}
    scored = [each for each in found if not isinstance(each, str)]
    try:
        told = measuring.measurement(ws, study, scored)
    except judge.NotComparable as refusal:
        return Outcome.STOPPED, {"reason": str(refusal)}
    targets = [target for target in dossier.goal_spec(ws, study).targets if target.value is not None]
    claims = [c for c in judging.claims(ws, study, measuring.numbers(plan)[0]) if c.target in targets]
    ending = judge.outcome(claims, promoted=False, targets=targets) if targets else Outcome.MET
    detail: dict[str, Any] = {"claims": [claim.model_dump(mode="json") for claim in claims]}
    detail |= {"measurement": told.model_dump(mode="json"), "reason": measuring.sentence(told)}
    detail["seal"] = {"strength": seal.STRENGTH, "meaning": seal.STRENGTH_MEANING, "opened": bool(claims)}
    return ending, detail
