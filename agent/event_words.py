"""An event's particulars in words, by its kind. What is missing is left out; the caller makes the text safe to show."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from nightsmith.agent import figures
from nightsmith.record.events import Event, EventKind

Data = Mapping[str, Any]


def particulars(event: Event) -> str:
    """What happened, without the time and the kind; empty where the kind says it all."""
    return _BY_KIND.get(event.kind, _anything)(event.data)


def _interpreted(data: Data) -> str:
    reasons = "; ".join(map(str, data.get("reasons") or ()))
    status = str(data.get("status", "")).replace("_", " ")
    return f"{status}: {reasons}" if reasons else status


def _preflight(data: Data) -> str:
    estimate = data.get("estimate")
    if not isinstance(estimate, dict):
        return _anything(data)
    known = cast("dict[str, Any]", estimate)
    each = f", {figures.duration(known['trial_s'])} a trial" if known["trial_s"] else ""
    return f"about {figures.duration(known['total_s'])} in all{each} ({known['basis']})"


def _approval(data: Data) -> str:
    return f"by {data['by']} ({data.get('how', '')})" if "by" in data else _anything(data)


def _noise(data: Data) -> str:
    if "metric" not in data:
        return _anything(data)
    metric = str(data["metric"])
    if data.get("fixed"):
        mean = figures.value(metric, data["mean"])
        return f"fixed reference: the unmodified model, {mean} {figures.metric_label(metric)}"
    mean, deviation = figures.value(metric, data["mean"]), figures.value(metric, data["seed_deviation"])
    return f"baseline {mean} {figures.metric_label(metric)}, seed deviation {deviation} ({data['seeds']} seeds)"


def _proposed(data: Data) -> str:
    return f"{figures.change(data.get('change') or {})} ({data.get('hypothesis', '')})"


def _job_started(data: Data) -> str:
    again = f", attempt {data['attempt']}" if data.get("attempt", 1) > 1 else ""
    parts = f", {data['micro_batch_size']} rows at once to save memory" if "micro_batch_size" in data else ""
    return f"{data.get('role', '')} on {', '.join(data.get('devices') or ())}{again}{parts}"


def _job_finished(data: Data) -> str:
    told = f"{data.get('status', '')} after {figures.duration(data.get('wall_s'))}"
    scores = cast("dict[str, float]", data.get("metrics") or {})
    shown = ", ".join(f"{figures.metric_label(name)} {figures.value(name, score)}" for name, score in scores.items())
    return ": ".join(part for part in (told, str(data.get("reason") or shown)) if part)


def _judged(data: Data) -> str:
    """The decision, the difference from the baseline that it rests on, the rule."""
    if data.get("estimate") is None:
        return _anything(data)
    metric = str(data["metric"])
    told = figures.estimated(metric, data["estimate"], data.get("interval"))
    return f"{data['decision']}: {figures.metric_label(metric)} {told}: {data['reason']}"


def _told(data: Data) -> str:
    heard = " ".join(str(data[name]) for name in ("meant", "setting", "direction") if data.get(name))
    return f"“{data.get('text', '')}” ({heard})"


def _anything(data: Data) -> str:
    """A sentence if there is one, else each value with its name."""
    if said := data.get("reason") or data.get("message"):
        decided = data.get("decision") or data.get("outcome")
        return f"{decided}: {said}" if decided else str(said)
    return ", ".join(f"{name} {_short(value)}" for name, value in data.items() if value not in (None, "", [], {}))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_short(item)}" for name, item in cast("dict[str, Any]", value).items())
    return figures.setting(value) if isinstance(value, (float, int, str)) else str(value)


_BY_KIND: Mapping[EventKind, Callable[[Data], str]] = {
    "study_started": lambda data: "",  # noqa: ARG005 - whoever watches has just typed the goal
    "interpreted": _interpreted,
    "preflight": _preflight,
    "approval": _approval,
    "planned": _noise,
    "trial_proposed": _proposed,
    "verdict": _judged,
    "confirmation": _judged,
    "job_started": _job_started,
    "job_finished": _job_finished,
    "told": _told,
}
