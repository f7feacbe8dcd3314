"""From what the record says of a study to the planner's question, and from its answer to trials that can be run."""

from typing import Any

from nightsmith.agent import dossier, judging
from nightsmith.agent.plan import PredictedEffect, StudyPlan, TrialPlan, Tunable
from nightsmith.agent.proposals import PastTrial, Proposal, ProposeRequest, SettingState
from nightsmith.agent.search import Direction, Tried, choose_value, proposal_seed
from nightsmith.agent.services import Services
from nightsmith.evals.types import Decision, Target, Verdict
from nightsmith.record import events, studies
from nightsmith.record.studies import TrialRow
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.base import ToolCall
from nightsmith.tools.training import Pretrain, Value, apply_change, recipe


def baseline_plan(plan: StudyPlan) -> TrialPlan:
    """Trial 0: the recipe that everything is compared with."""
    calls = tuple(call for call in plan.calls if call.tool == "pretrain")
    return TrialPlan(move="baseline", hypothesis="The recipe that every trial is compared with.", calls=calls)


def trial_plan(row: TrialRow) -> TrialPlan:
    """A trial's plan as it was recorded."""
    return TrialPlan.model_validate(row.plan)


async def propose(services: Services, study: str, number: int, room: int) -> tuple[list[TrialPlan], dict[str, Any]]:
    """Ask the planner for up to `room` trials, numbered from `number`. Proposals that repeat a recipe are dropped."""
    request = request_for(services.ws, study, number, room)
    proposals, transcript = await services.planner().propose(request)
    plans: list[TrialPlan] = []
    for offset, proposal in enumerate(proposals):
        drawn = drawn_up(services.ws, study, number + offset, proposal, plans)
        if drawn is None:
            said = f"Proposal dropped: no new value of {proposal.setting} is left ({proposal.direction})."
            events.append(services.ws, study, "warning", data={"reason": said})
        else:
            plans.append(drawn)
    return plans, transcript


def request_for(ws: Workspace, study: str, number: int, room: int) -> ProposeRequest:
    """What the planner is shown: objective, settings as they stand in the best recipe, past trials."""
    plan, spec = dossier.study_plan(ws, study), dossier.goal_spec(ws, study)
    rows = [row for row in studies.trials(ws, study) if row.number > 0]
    best = recipe(best_recipe(ws, study))
    settings = tuple(
        SettingState(name=t.name, value=best[t.name], tried=_tried_values(rows, t.name)) for t in plan.space
    )
    objective = "; ".join(map(target_text, spec.targets)) or f"improve {judging.primary_metric(ws, study)}"
    history = tuple(past for row in rows if (past := _past(ws, study, row, plan)) is not None)
    left = plan.max_trials - number + 1
    return ProposeRequest(objective=objective, settings=settings, history=history, trials_left=left, k=room)


def target_text(target: Target) -> str:
    """A target in short words, e.g. `bits_per_byte <= -0.15 difference to baseline`."""
    value = "" if target.value is None else f" {target.value:g}"
    against = f" {target.relation} to {target.relative_to}" if target.relative_to else ""
    return f"{target.metric} {target.op}{value}{against}"


def best_recipe(ws: Workspace, study: str) -> Pretrain:
    """The recipe that trials start from: the best promising trial's, else the baseline's."""
    number = judging.best_promising(ws, study, ())
    return _recipe_of(next(row for row in studies.trials(ws, study) if row.number == (number or 0)))


def drawn_up(ws: Workspace, study: str, number: int, proposal: Proposal, beside: list[TrialPlan]) -> TrialPlan | None:
    """A proposal with its open number filled in by the search; None where no new value is left."""
    if proposal.setting is None:
        return TrialPlan(move=proposal.move, hypothesis=proposal.hypothesis, calls=())
    plan, base = dossier.study_plan(ws, study), best_recipe(ws, study)
    tunable = next((t for t in plan.space if t.name == proposal.setting), None)
    if tunable is None:
        return None
    value = _value(ws, study, number, tunable, proposal.direction or "tune", base, beside)
    if value is None:
        return None
    args = apply_change(base, {tunable.name: value})
    better = "lower" if judging.is_lower_better(ws, study) else "higher"
    return TrialPlan(
        move=proposal.move,
        hypothesis=proposal.hypothesis,
        change=_difference(_recipe_of(studies.trials(ws, study)[0]), args),
        calls=(ToolCall(tool="pretrain", args=args.model_dump(mode="json", exclude_none=True)),),
        predicted=PredictedEffect(metric=judging.primary_metric(ws, study), direction=better),
    )


def _value(
    ws: Workspace, study: str, number: int, tunable: Tunable, direction: Direction, base: Pretrain,
    beside: list[TrialPlan],
) -> Value | None:  # fmt: skip
    rows = studies.trials(ws, study)
    same_but = [
        r
        for r in map(recipe, map(_recipe_of, rows))
        if _without(r, tunable.name) == _without(recipe(base), tunable.name)
    ]
    running = [plan.change[tunable.name] for plan in beside if tunable.name in plan.change]
    return choose_value(
        tunable,
        direction,
        recipe(base)[tunable.name],
        _tried(rows),
        lower_is_better=judging.is_lower_better(ws, study),
        seed=proposal_seed(studies.get(ws, study).goal, number),
        taken=[*(r[tunable.name] for r in same_but), *running],
    )


def _without(settings: dict[str, Value], name: str) -> dict[str, Value]:
    return {key: value for key, value in settings.items() if key not in (name, "num_steps", "seed")}


def _tried(rows: list[TrialRow]) -> list[Tried]:
    found = [(row, judging.verdict_of(row, "screen")) for row in rows]
    return [Tried(recipe(_recipe_of(row)), v.value) for row, v in found if v is not None and v.value is not None]


def _tried_values(rows: list[TrialRow], name: str) -> tuple[Value, ...]:
    changes = [trial_plan(row).change for row in rows]
    return tuple(dict.fromkeys(change[name] for change in changes if name in change))


def _past(ws: Workspace, study: str, row: TrialRow, plan: StudyPlan) -> PastTrial | None:
    verdict = judging.verdict_of(row, "confirm") or judging.verdict_of(row, "screen")
    changed = trial_plan(row).change
    if verdict is None or not changed:
        return None
    setting = next(iter(changed))
    raised = _is_raised(plan, setting, changed[setting])
    sign = -1.0 if judging.is_lower_better(ws, study) else 1.0
    return PastTrial(
        number=row.number,
        setting=setting,
        direction="tune" if raised is None else "raise" if raised else "lower",
        gain=None if verdict.estimate is None else sign * verdict.estimate,
        decision=_word(verdict),
        meets_target=verdict.meets_target,
    )


def _is_raised(plan: StudyPlan, setting: str, value: Value) -> bool | None:
    before = plan.recipe[setting]
    return value > before if isinstance(value, (int, float)) and isinstance(before, (int, float)) else None


def _word(verdict: Verdict) -> Any:
    """A verdict in the planner's vocabulary."""
    if verdict.promising:
        return "promising"
    words = {Decision.PROMOTED: "promoted", Decision.REJECTED: "rejected", Decision.INCONCLUSIVE: "inconclusive"}
    return words.get(verdict.decision, "failed")


def _recipe_of(row: TrialRow) -> Pretrain:
    args = registry.validate(next(call for call in trial_plan(row).calls if call.tool == "pretrain"))
    assert isinstance(args, Pretrain)
    return args


def _difference(base: Pretrain, args: Pretrain) -> dict[str, Value]:
    """Settings in which a recipe differs from the baseline; the number of steps follows from the others."""
    before, after = recipe(base), recipe(args)
    found = {name: value for name, value in after.items() if value != before[name]}
    return {name: value for name, value in found.items() if name != "num_steps" or len(found) == 1}
