"""From the goal's text to an approved plan: interpret, clarify, preflight, approve."""

import asyncio
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from nightsmith.agent import dossier, editing, ledger, window
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.preflight import preflight
from nightsmith.agent.questions import named, with_answers
from nightsmith.agent.services import Services
from nightsmith.agent.state import State
from nightsmith.record import approvals, budget, events, studies
from nightsmith.record.approvals import Envelope
from nightsmith.record.errors import NightsmithError, NotApproved
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry

Go = Command[Any]


async def interpret(state: State, runtime: Runtime[Services]) -> Go:
    """The planner reads the goal (and what was answered so far). Its words become a spec, questions, or a refusal."""
    ws, study = runtime.context.ws, state["study"]
    understood: Any = dossier.load(ws, study, "interpretation")
    answers: list[str] = dossier.load(ws, study, "answers") or []
    if understood is None or understood["num_answers"] < len(answers):
        text = with_answers(studies.get(ws, study).goal, answers)
        reading = await runtime.context.planner().interpret(text)
        ledger.keep_transcript(ws, study, "interpret", reading.transcript)
        understood = {**reading.as_json(), "num_answers": len(answers)}
        dossier.save(ws, study, "interpretation", understood)
        events.append(ws, study, "interpreted", data={k: understood[k] for k in ("status", "reasons")})
    if understood["spec"] is not None:
        studies.set_spec(ws, study, understood["spec"])
    if understood["status"] == "blocked":
        return _blocked(
            ws, study, " ".join(understood["reasons"]) or "The goal asks for something that is not allowed."
        )
    return Command(goto="preflight" if understood["status"] == "ready" else "clarify")


async def clarify(state: State, runtime: Runtime[Services]) -> Go:
    """Ask what the planner could not read from the text; the answers join the text and it is read again."""
    ws, study = runtime.context.ws, state["study"]
    understood = dossier.load(ws, study, "interpretation")
    given = interrupt({"kind": "question", "questions": understood["questions"]})
    if not given:
        return Command(goto="report", update={"ended": dossier.STOPPED})
    known: list[str] = dossier.load(ws, study, "answers") or []
    if len(known) == understood["num_answers"]:  # else a step that was cut off has saved them
        dossier.save(ws, study, "answers", [*known, *named(understood["questions"], given)])
    return Command(goto="interpret")


async def check_world(state: State, runtime: Runtime[Services]) -> Go:
    """Preflight: whether data and hardware exist, and what the study will take. A refused edit changes nothing."""
    ws, study = runtime.context.ws, state["study"]
    edits = state.get("edits") or {}
    try:
        spec = _edited(ws, study, edits) if edits else dossier.goal_spec(ws, study)
        narrowed = window.of(ws, study).narrowed(spec)
        plan = await asyncio.to_thread(preflight, narrowed, ws, runtime.context.cwd)
    except NightsmithError as refusal:
        if not edits:
            return _blocked(ws, study, str(refusal))
        events.append(ws, study, "warning", data={"reason": f"Not edited: {refusal}"})
        return Command(goto="approve", update={"edits": {}})
    if edits:
        _save_edited(ws, study, spec, edits)
    dossier.save(ws, study, "plan", plan.model_dump(mode="json"))
    events.append(ws, study, "preflight", data={"estimate": plan.estimate.model_dump(mode="json")})
    return Command(goto="approve", update={"edits": {}})


def _edited(ws: Workspace, study: str, edits: dict[str, str]) -> GoalSpec:
    """The goal with a person's changes. Raises CannotEdit."""
    return editing.edited(dossier.goal_spec(ws, study), {}, edits, dossier.study_plan(ws, study).recipe)[0]


def _save_edited(ws: Workspace, study: str, spec: GoalSpec, edits: dict[str, str]) -> None:
    """The goal as edited takes the place of the goal as read; each edited place says so in its source."""
    reading = dossier.load(ws, study, "interpretation")
    _, sources = editing.edited(spec, reading["sources"], edits, dossier.study_plan(ws, study).recipe)
    saved = reading | {"spec": spec.model_dump(mode="json"), "sources": sources}
    dossier.save(ws, study, "interpretation", saved)
    studies.set_spec(ws, study, saved["spec"])


def envelope(ws: Workspace, study: str) -> Envelope:
    """What is to be approved: the goal, the plan, and the bounds that every start is held to.

    Raises ToolError where a call of the plan has arguments that its tool does not take.
    """
    spec, plan = dossier.goal_spec(ws, study), dossier.study_plan(ws, study)
    for call in plan.calls:
        registry.validate(call)
    return Envelope(
        study=study,
        spec_digest=spec.digest(),
        plan_digest=plan.digest(),
        kinds=(*dict.fromkeys(call.tool for call in plan.stages), "evaluate"),
        methods=tuple(spec.methods),
        max_trials=plan.max_trials,
        budget=spec.budget.model_copy(update={"max_trials": plan.max_trials}),
        time_limit_s=plan.job_limit_s,
    )


async def approve(state: State, runtime: Runtime[Services]) -> Go:
    """Nothing starts before a person (or a schedule that a person made) approved the envelope, edited or not."""
    ws, study = runtime.context.ws, state["study"]
    answer = interrupt({"kind": "approval", "study": study})
    if answer.get("edits"):
        return Command(goto="preflight", update={"edits": answer["edits"]})
    if not answer["approved"]:
        return _rejected(ws, study, answer)
    given = approvals.approve(ws, envelope(ws, study), how=answer["how"])
    budget.open_account(ws, study, given.envelope.budget, ends_at=window.of(ws, study).deadline())
    ledger.charge(ws, study)
    events.append(ws, study, "approval", data={"by": given.by, "how": given.how, "hash": given.envelope_digest})
    return Command(goto="baseline" if dossier.study_plan(ws, study).stages else "prepare")


def _rejected(ws: Workspace, study: str, answer: dict[str, Any]) -> Go:
    """The study ends; why its plan was turned down is kept."""
    told = "The plan was not approved" + (f": {answer['reason']}" if answer.get("reason") else "")
    if answer.get("how") == "console":
        events.append(ws, study, "approval", data={"decision": "rejected", "reason": answer.get("reason", "")})
    return Command(goto="report", update={"ended": f"{told.rstrip('.')}."})


def renew(ws: Workspace, study: str, how: approvals.How = "flag") -> None:
    """Approve the same envelope anew, where the one that was approved has expired meanwhile."""
    if is_expired(ws, study):
        approvals.approve(ws, envelope(ws, study), how=how)


def is_expired(ws: Workspace, study: str) -> bool:
    """Whether the study was approved, and the approval covers nothing any more."""
    if not budget.is_open(ws, study):
        return False
    try:
        with ws.read() as db:
            approvals.require(db, study, kind="evaluate", time_limit_s=1)
    except NotApproved:
        return True
    return False


def _blocked(ws: Workspace, study: str, reason: str) -> Go:
    studies.set_state(ws, study, "blocked", {"reason": reason})
    return Command(goto="report", update={"ended": reason})
