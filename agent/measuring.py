"""What models scored that nobody trained here: their figures, the difference of two, and both in a sentence."""

from collections.abc import Sequence
from typing import Any

from nightsmith.agent import dossier, figures
from nightsmith.agent.looking import compared_with
from nightsmith.agent.materials import manifest_of
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.planning_measured import main_metric
from nightsmith.agent.side_by_side import ORDER, figure
from nightsmith.agent.side_view import Measured, Measurement
from nightsmith.evals import judge, stats
from nightsmith.evals.suite import Scored
from nightsmith.evals.types import Difference
from nightsmith.record.workspace import Workspace


def numbers(plan: StudyPlan) -> tuple[int, ...]:
    """Trial numbers of the evaluations, the goal's own model first: 0 is what is compared with, or the one model."""
    return (1, 0) if plan.reference else (0,)


def measurement(ws: Workspace, study: str, scored: Sequence[Scored]) -> Measurement:
    """Figures of one model, or of two with their differences. Raises NotComparable where the main one has none."""
    spec, plan = dossier.goal_spec(ws, study), dossier.study_plan(ws, study)
    main: Any = main_metric(spec, manifest_of(ws, study).rows)
    known = [name for name in ORDER if all(stats.measures(each.items, name) for each in scored)]
    names = sorted(known, key=lambda name: name != main)
    refs = [ref for ref in (plan.model, plan.reference) if ref]
    called = [spec.model or refs[0].path, compared_with(spec) or ""]
    models = [
        Measured(
            name=name, path=ref.path, weights_digest=ref.weights_digest,
            metrics={metric: figure(each.items, metric) for metric in names},
        )
        for name, ref, each in zip(called, refs, scored, strict=False)
    ]  # fmt: skip
    rows = len(scored[0].items)
    return Measurement(main=main, n=rows, models=tuple(models), differences=tuple(_differences(scored, main, names)))


def _differences(scored: Sequence[Scored], main: Any, names: Sequence[str]) -> list[Difference]:
    """The main metric's, which must be known, and others that can be compared."""
    if len(scored) < 2:
        return []
    found = [judge.difference(scored[0], scored[1], main)]
    for name in (each for each in names if each not in (main, "margin")):
        metric: Any = name
        try:
            found.append(judge.difference(scored[0], scored[1], metric))
        except judge.NotComparable:
            continue
    return found


def sentence(told: Measurement) -> str:
    """What was measured; of two models which is better by the main metric, or that no difference is shown."""
    label = figures.metric_label(told.main)
    shown = [f"{_value(told, model)} of {model.name}" for model in told.models]
    if not told.differences:
        return f"{label} {shown[0]} on {figures.counted(told.n, 'row')}."
    own = told.differences[0]
    amount = figures.estimated(told.main, own.estimate, own.interval)
    first, second = (model.name for model in told.models)
    better = {"first": f"{first} is better than {second}", "second": f"{second} is better than {first}"}
    verdict = better[own.better] if own.better else f"no difference between {first} and {second} is shown"
    return f"{verdict}: {label} {' against '.join(shown)}, difference {amount} on {figures.counted(told.n, 'row')}."


def _value(told: Measurement, model: Measured) -> str:
    """`41.2 % [35.1 %, 47.5 %]`."""
    found = model.metrics[told.main]
    if found.low is None or found.high is None:
        return figures.value(told.main, found.value)
    ends = ", ".join(figures.value(told.main, end) for end in (found.low, found.high))
    return f"{figures.value(told.main, found.value)} [{ends}]"
