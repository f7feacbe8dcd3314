"""From what the record says of a study to the planner's question, and from its answer to trials that can be run."""

from typing import Any

from nightsmith.agent import dossier, judging, loops, materials, priors, recipes, steering
from nightsmith.agent.plan import PredictedEffect, StudyPlan, TrialPlan, Tunable
from nightsmith.agent.planner import PlannerConfused
from nightsmith.agent.proposals import (
    SETTINGS,
    Direction,
    PastTrial,
    Proposal,
    ProposeRequest,
    SettingState,
    untried,
)  # fmt: skip
from nightsmith.agent.recipes import settings
from nightsmith.agent.search import Tried, choose_value, proposal_seed
from nightsmith.agent.services import Services
from nightsmith.evals.types import Decision, Target, Verdict
from nightsmith.record import events, studies
from nightsmith.record.studies import TrialRow
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolCall, ToolError
from nightsmith.tools.training import Value

MENDED = "With it, to where sound recipes of this size and length begin: {}."
"""What is said of settings that go with a move."""


def baseline_plan(plan: StudyPlan) -> TrialPlan:
    """Trial 0, which everything is compared with: the model that is fine-tuned as it is, else the plan's recipe."""
    if plan.model is not None:
        said = "The unmodified model that every trial is compared with."
        return TrialPlan(move="baseline", hypothesis=said, calls=())
    return TrialPlan(move="baseline", hypothesis="The recipe that every trial is compared with.", calls=plan.stages)


def recipe_plan(ws: Workspace, study: str, plan: StudyPlan) -> TrialPlan:
    """The first trial where the baseline is an unmodified model: the plan's recipe, which nobody has tried yet."""
    return TrialPlan(
        move="recipe",
        hypothesis="The plan's recipe as it stands; later trials change one setting of the best so far.",
        calls=plan.stages,
        predicted=_better(ws, study),
    )


def trial_plan(row: TrialRow) -> TrialPlan:
    """A trial's plan as it was recorded."""
    return TrialPlan.model_validate(row.plan)


async def propose(services: Services, study: str, number: int, room: int) -> tuple[list[TrialPlan], dict[str, Any]]:
    """Up to `room` trials, numbered from `number`: the planner's, and before them a recipe that was never run.

    Proposals that repeat a recipe are dropped.
    """
    plan = dossier.study_plan(services.ws, study)
    if number > 1 or plan.model is None:
        return await _ask(services, study, number, room)
    first = recipe_plan(services.ws, study, plan)
    more, transcript = await _ask(services, study, number + 1, room - 1) if room > 1 else ([], {})
    return [first, *(each for each in more if each.move not in ("confirm", "stop"))], transcript


async def _ask(services: Services, study: str, number: int, room: int) -> tuple[list[TrialPlan], dict[str, Any]]:
    """Up to `room` trials: what a person told the study to try, then what the planner proposes."""
    proposals, transcript = steering.wanted(services.ws, study)[:room], dict[str, Any]()
    left = room - len(proposals)
    request = steering.steered(services.ws, study, request_for(services.ws, study, number, max(1, left)))
    if left > 0 and request.settings:
        more, transcript = await _planners(services, study, request)
        proposals = [*proposals, *more]
    plans = _drawn(services.ws, study, number, proposals)
    if proposals and not plans:  # all of them repeat a recipe
        plans = _drawn(services.ws, study, number, untried(request), most=request.k)
    return plans, transcript


def _drawn(
    ws: Workspace, study: str, number: int, proposals: list[Proposal], most: int | None = None
) -> list[TrialPlan]:
    """Trials, `most` at most, numbered from `number`; what cannot be one, or repeats a recipe, is dropped, and said."""
    plans: list[TrialPlan] = []
    for proposal in proposals:
        if len(plans) == most:
            break
        said = f"Proposal dropped: no new value of {proposal.setting} is left ({proposal.direction})."
        try:
            drawn = drawn_up(ws, study, number + len(plans), proposal, plans)
            if drawn is not None and (why := loops.repetition(drawn, _past_plans(ws, study, plans))):
                drawn, said = None, f"Proposal dropped: {why}"
        except ToolError as refusal:
            drawn, said = None, f"Proposal dropped: {refusal}"
        if drawn is None:
            events.append(ws, study, "warning", data={"reason": said, "setting": proposal.setting})
        else:
            plans.append(drawn)
    return plans


def _past_plans(ws: Workspace, study: str, beside: list[TrialPlan]) -> list[tuple[TrialPlan, Verdict | None]]:
    """Trials in the record with what came of them, and those that will run beside."""
    rows = [(trial_plan(row), judging.verdict_of(row, "screen")) for row in studies.trials(ws, study)]
    return [*rows, *((plan, None) for plan in beside)]


async def _planners(services: Services, study: str, request: ProposeRequest) -> tuple[list[Proposal], dict[str, Any]]:
    """What the planner proposes, or the search in its place."""
    try:
        return await services.planner().propose(request)
    except PlannerConfused as confused:
        events.append(services.ws, study, "warning", data={"reason": f"{confused} The search chooses instead."})
        return untried(request)[: request.k], confused.transcript


def request_for(ws: Workspace, study: str, number: int, room: int) -> ProposeRequest:
    """What the planner is shown: objective, settings as they stand in the best recipe, past trials."""
    plan, spec = dossier.study_plan(ws, study), dossier.goal_spec(ws, study)
    rows = [row for row in studies.trials(ws, study) if row.number > 0]
    best = settings(recipe_of(ws, study, best_trial(ws, study)))
    states = tuple(
        SettingState(name=t.name, value=best[t.name], tried=_tried_values(rows, t.name))
        for t in plan.space
        if t.name in best and t.name in SETTINGS
    )
    objective = "; ".join(map(target_text, spec.targets)) or f"improve {judging.primary_metric(ws, study)}"
    history = tuple(past for row in rows if (past := _past(ws, study, row)) is not None)
    left = plan.max_trials - number + 1
    asked = ProposeRequest(
        objective=objective, settings=states, history=history, trials_left=left, k=room,
        must_go_on=left > 0 and judging.has_threshold(ws, study) and not any(past.meets_target for past in history),
        data=materials.findings(ws, study, plan.stages[-1].args.get("dataset", materials.DATASET)),
    )  # fmt: skip
    return priors.offered(loops.without_exhausted(asked), best)


def target_text(target: Target) -> str:
    """A target in short words, e.g. `bits_per_byte <= -0.15 difference to baseline`."""
    value = "" if target.value is None else f" {target.value:g}"
    against = f" {target.relation} to {target.relative_to}" if target.relative_to else ""
    return f"{target.metric} {target.op}{value}{against}"


def best_trial(ws: Workspace, study: str) -> int:
    """The trial that new ones start from: the best promising one, else the baseline."""
    return judging.best_promising(ws, study, ()) or 0


def recipe_of(ws: Workspace, study: str, number: int) -> recipes.Training:
    """The recipe that trials start from: of a trial's last stage; before any was run, the plan's."""
    return recipes.arguments(_stages(ws, study, number)[-1])


def _stages(ws: Workspace, study: str, number: int) -> tuple[ToolCall, ...]:
    row = next(row for row in studies.trials(ws, study) if row.number == number)
    return trial_plan(row).stages or dossier.study_plan(ws, study).stages


def drawn_up(ws: Workspace, study: str, number: int, proposal: Proposal, beside: list[TrialPlan]) -> TrialPlan | None:
    """A proposal with its open number filled in by the search; None where no new value is left."""
    if proposal.setting is None:
        return TrialPlan(move=proposal.move, hypothesis=proposal.hypothesis, calls=())
    plan, base = dossier.study_plan(ws, study), recipe_of(ws, study, best_trial(ws, study))
    if proposal.setting == "seed":  # every trial has a seed of its own: the recipe is repeated as it is
        return _trial(ws, study, proposal, {})
    tunable = next((t for t in plan.space if t.name == proposal.setting), None)
    if tunable is None:
        return None
    value = _value(ws, study, number, tunable, proposal.direction or "tune", base, beside)
    if value is None:
        return None
    return _trial(ws, study, proposal, _mended(ws, study, proposal, beside) | {tunable.name: value})


def _mended(ws: Workspace, study: str, proposal: Proposal, beside: list[TrialPlan]) -> dict[str, Value]:
    """What goes with the planner's move: settings that are off their sound values, but for those to be left alone."""
    if proposal.alone or any(len(plan.change) > 1 for plan in beside):
        return {}
    alone = steering.left_alone(ws, study)
    space = [t for t in dossier.study_plan(ws, study).space if t.name not in alone]
    tried = [recipe for row in studies.trials(ws, study) if (recipe := _settings(row))]
    return priors.mended(settings(recipe_of(ws, study, best_trial(ws, study))), space, tried)


def _trial(ws: Workspace, study: str, proposal: Proposal, change: dict[str, Value]) -> TrialPlan:
    start, beside = best_trial(ws, study), sorted(change.keys() - {proposal.setting})
    with_it = [MENDED.format(", ".join(beside))] if beside else []
    return TrialPlan(
        move=proposal.move,
        hypothesis=" ".join([proposal.hypothesis, *with_it]),
        setting=proposal.setting if beside else None,
        change=change,
        start=start,
        calls=recipes.changed(_stages(ws, study, start), change),
        predicted=_better(ws, study),
    )


def _better(ws: Workspace, study: str) -> PredictedEffect:
    better = "lower" if judging.is_lower_better(ws, study) else "higher"
    return PredictedEffect(metric=judging.primary_metric(ws, study), direction=better)


def _value(
    ws: Workspace, study: str, number: int, tunable: Tunable, direction: Direction, base: recipes.Training,
    beside: list[TrialPlan],
) -> Value | None:  # fmt: skip
    rows = studies.trials(ws, study)
    known = [recipe for row in rows if (recipe := _settings(row))]
    same_but = [r for r in known if _without(r, tunable.name) == _without(settings(base), tunable.name)]
    running = [plan.change[tunable.name] for plan in beside if tunable.name in plan.change]
    return choose_value(
        tunable,
        direction,
        settings(base)[tunable.name],
        _tried(rows),
        lower_is_better=judging.is_lower_better(ws, study),
        seed=proposal_seed(dossier.goal_spec(ws, study).digest(), number),
        taken=[*(r[tunable.name] for r in same_but), *running],
        sound=priors.sound(settings(base)).get(tunable.name),
    )


def _without(recipe: dict[str, Value], name: str) -> dict[str, Value]:
    """What makes a recipe, but for one setting, and for those that follow from others."""
    return {key: value for key, value in recipe.items() if key not in (name, "num_steps", "lora_alpha", "seed")}


def _tried(rows: list[TrialRow]) -> list[Tried]:
    found = [(_settings(row), judging.verdict_of(row, "screen")) for row in rows]
    return [Tried(recipe, v.value) for recipe, v in found if recipe and v is not None and v.value is not None]


def _settings(row: TrialRow) -> dict[str, Value]:
    """A trial's recipe; empty for an unmodified model."""
    stages = trial_plan(row).stages
    return settings(recipes.arguments(stages[-1])) if stages else {}


def _tried_values(rows: list[TrialRow], name: str) -> tuple[Value, ...]:
    changes = [trial_plan(row).change for row in rows]
    return tuple(dict.fromkeys(change[name] for change in changes if name in change))


def _past(ws: Workspace, study: str, row: TrialRow) -> PastTrial | None:
    verdict = judging.verdict_of(row, "confirm") or judging.verdict_of(row, "screen")
    tried = trial_plan(row)
    if verdict is None or not tried.change:
        return None
    setting = tried.setting or next(iter(tried.change))
    raised = _is_raised(settings(recipe_of(ws, study, tried.start)).get(setting), tried.change[setting])
    sign = -1.0 if judging.is_lower_better(ws, study) else 1.0
    return PastTrial(
        number=row.number,
        setting=setting,
        direction="tune" if raised is None else "raise" if raised else "lower",
        gain=None if verdict.estimate is None else sign * verdict.estimate,
        decision=_word(verdict),
        meets_target=verdict.meets_target,
        dead_experts=judging.dead_experts(ws, study, row.number),
    )


def _is_raised(before: Value | None, value: Value) -> bool | None:
    return value > before if isinstance(value, (int, float)) and isinstance(before, (int, float)) else None


def _word(verdict: Verdict) -> Any:
    """A verdict in the planner's vocabulary."""
    if verdict.promising:
        return "promising"
    words = {Decision.PROMOTED: "promoted", Decision.REJECTED: "rejected", Decision.INCONCLUSIVE: "inconclusive"}
    return words.get(verdict.decision, "failed")
