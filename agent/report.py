"""The report of a study: one self-contained HTML page and its Markdown twin, from the record and result files only."""

import os
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as markup_escape

from nightsmith.agent import account, escape, figures, history, side_words, trial_words
from nightsmith.agent.curve import Curve, Point, best_so_far, interval, is_barred
from nightsmith.agent.side_by_side import with_sides
from nightsmith.agent.stage_words import stage_rows
from nightsmith.agent.telling import rest, telling
from nightsmith.agent.view import StudyView, TrialView
from nightsmith.evals.types import Decision, Target
from nightsmith.record.workspace import Workspace

_TEMPLATES = Path(__file__).parent / "templates"


def write(ws: Workspace, study: str) -> Path:
    """Write `reports/<study>/index.html` and `report.md`, each replaced at once; returns the HTML page's path."""
    view = with_sides(ws, history.load(ws, study))
    folder = ws.reports / study
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "report.md", markdown(view))
    return _replace(folder / "index.html", html(view))


def html(view: StudyView) -> str:
    """The page: no script, nothing loaded from elsewhere, every strange text escaped."""
    return environment(autoescape=True).get_template("report.html.j2").render(_context(view))


def markdown(view: StudyView) -> str:
    """The same account as Markdown (CommonMark with tables)."""
    return environment(autoescape=False).get_template("report.md.j2").render(_context(view))


def curve_of(view: StudyView) -> Curve:
    """The study's best-so-far curve, on the dev split."""
    points = [_point(trial) for trial in view.proposed if trial.screen and trial.screen.value is not None]
    best = [(point.trial, point.value) for point in view.best]
    return Curve(view.metric, points, best, list(view.baseline.values()), view.target)


def _point(trial: TrialView) -> Point:
    """The screened value; its interval is the estimate's, moved to the value."""
    verdict = trial.screen
    assert verdict is not None
    assert verdict.value is not None
    decision = trial.decision.value if trial.decision else ""
    if verdict.interval is None or verdict.estimate is None:
        return Point(trial.number, verdict.value, decision=decision)
    low, high = (verdict.value - verdict.estimate + end for end in verdict.interval)
    return Point(trial.number, verdict.value, low, high, decision)


def _context(view: StudyView) -> dict[str, object]:
    curve = curve_of(view)
    first, more, lead = account.outcome_sentence(view).partition(". ")
    label = f"Best {figures.metric_label(view.metric)} so far by trial"
    return {
        "view": view,
        "telling": telling(view),
        "rest": rest(view),
        "label": figures.metric_label(view.metric),
        "headline": f"{first}." if more else first,
        "lead": lead,
        "ended": "" if view.outcome is None or view.reason.rstrip(".") in f"{first}. {lead}" else view.reason,
        "targets": account.targets_words(view),
        "baseline_note": side_words.baseline_note(view),
        "sides_heading": side_words.heading(view) if view.sides else "",
        "stages": stage_rows(view),
        "audits": side_words.audit_words(view),
        "range_words": side_words.range_words,
        "metric_label": figures.metric_label,
        "difference_words": partial(side_words.difference_words, view.measurement),
        "guardrails": [figures.target_words(guardrail) for guardrail in (view.spec.guardrails if view.spec else ())],
        "confirmed": [trial for trial in view.proposed if trial.confirm],
        "drawn": bool(curve.points or curve.baseline),
        "barred": is_barred(curve),
        "curve": Markup(best_so_far(curve, label=label)),
        "curve_narrow": Markup(best_so_far(curve, width=360, height=270, label=label)),
        "interval": partial(_interval, view, _reach(view)),
        "budget": _budget(view),
        "defaults": _defaults(view),
        "commands": account.commands(view),
        "limits": account.limits(view),
        "seal": account.seal_words(view),
        "estimate_words": partial(account.estimate_words, view),
        "change": partial(trial_words.change_from, view),
        "span": figures.span(view.created_at, view.ended_at),
        "night": account.night_words(view),
        "seeds": partial(account.seeds_words, view),
        "reached": account.reached_words,
        "approval_words": account.approval_words,
        "expectation": account.expectation_words,
        "guardrail_checks": account.guardrail_words,
        "num_promoted": sum(trial.decision is Decision.PROMOTED for trial in view.proposed),
    }


def _interval(view: StudyView, reach: float, trial: TrialView) -> Markup:
    verdict = trial.verdict
    if verdict is None or verdict.estimate is None:
        return Markup("")
    low, high = verdict.interval or (None, None)
    return Markup(interval(low, verdict.estimate, high, reach, _target_difference(view)))


def _reach(view: StudyView) -> float:
    """Largest difference that the row pictures must hold; far outliers are cut off at three times the middle one."""
    verdicts = [trial.verdict for trial in view.proposed if trial.verdict]
    ends = sorted(abs(end) for verdict in verdicts for end in (verdict.interval or ()))
    if not ends:
        return 1.0
    return max(min(ends[-1], 3 * ends[(len(ends) - 1) // 2]), abs(_target_difference(view) or 0.0)) * 1.05


def _target_difference(view: StudyView) -> float | None:
    mean = view.baseline_mean
    return None if view.target is None or mean is None else view.target - mean


def _budget(view: StudyView) -> list[tuple[str, str, str]]:
    """(what, spent, allowed); what was neither limited nor used is left out."""
    allowed, amount = view.spent.allowed, view.spent.amount
    money = f"{allowed.cost.amount:,.2f} {allowed.cost.currency}" if allowed.cost else ""
    rows = [
        ("Proposed trials", str(amount.trials), "" if allowed.max_trials is None else str(allowed.max_trials)),
        ("Wall clock", figures.duration(view.spent.active_s), _time_limit(view)),
        ("Training tokens", figures.count(amount.tokens), _limit(allowed.tokens, figures.count)),
        ("CPU-device time", figures.duration(amount.cpu_s), ""),
        ("GPU-hours", f"{amount.gpu_hours:.2f}", _limit(allowed.gpu_hours, "{:.2f}".format)),
        ("Money", f"{amount.cost:,.2f}", money),
    ]
    used = {"GPU-hours": amount.gpu_hours, "Money": amount.cost}
    return [(what, spent, limit or "no limit") for what, spent, limit in rows if limit or used.get(what, 1)]


def _time_limit(view: StudyView) -> str:
    """The budget of time, and the end of the night's window."""
    night, limit = view.night, _limit(view.spent.allowed.wall_clock_s, figures.duration)
    until = f"until {figures.moment(night.ends_at, night.timezone)[-5:]}" if night and night.ends_at else ""
    return ", ".join(part for part in (limit, until) if part)


def _limit(limit: float | None, show: Callable[[float], str]) -> str:
    return "" if limit is None else show(limit)


def _defaults(view: StudyView) -> list[str]:
    """Fields of the spec that the goal's text did not name."""
    return sorted(pointer for pointer, source in view.sources.items() if source == "default")


@cache
def environment(*, autoescape: bool) -> Environment:
    """Templates with the filters that make figures and strange text safe to show."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_filters(tagged=autoescape))  # pyright: ignore[reportUnknownMemberType]
    return environment


def _filters(*, tagged: bool) -> dict[str, Callable[..., str]]:
    def metric(figure: float | None, name: str) -> str:
        return _data(figure, figures.value(name, figure), tagged=tagged)

    def difference(figure: float | None, name: str) -> str:
        return _data(figure, figures.difference(name, figure), tagged=tagged)

    def against(figure: float, target: Target) -> str:
        return _data(figure, figures.against(target, figure), tagged=tagged)

    return {
        "plain": escape.plain,
        "md": escape.markdown,
        "code": escape.code,
        "fenced": escape.fenced,
        "duration": figures.duration,
        "count": figures.count,
        "p_value": figures.p_value,
        "target_words": figures.target_words,
        "metric": metric,
        "difference": difference,
        "against": against,
    }


def _data(figure: float | None, shown: str, *, tagged: bool) -> str:
    """In HTML the rounded figure carries the full one, so that a machine can compare it with its result file."""
    if not tagged or figure is None:
        return shown
    return Markup(f'<data value="{figure!r}">{markup_escape(shown)}</data>')  # a fifth of the time of Markup.format


def _replace(path: Path, text: str) -> Path:
    """Write beside the file, then rename: a reader sees the old page or the new one, never half."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
