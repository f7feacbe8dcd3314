"""Trials side by side, and their settings against the plan's recipe: answers to "compare" and "config"."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from nightsmith.agent import figures, trial_words
from nightsmith.agent.conversing import Utterance
from nightsmith.agent.trial_words import trial_of
from nightsmith.agent.view import StudyView, TrialView

WIDEST = 78
"""Characters of a line."""
NARROWEST = 20
"""Characters of a column below which trials are shown one after the other."""


def compare(view: StudyView, utterance: Utterance) -> str:
    """The named trials side by side; one alone beside the baseline; none: the best beside the baseline."""
    numbers = utterance.trials or (trial_words.best_number(view) or 0,)
    numbers = numbers if len(numbers) > 1 else tuple(sorted({0, *numbers}))
    if len(numbers) < 2:
        return f"Name two trials to compare; trials: {trial_words.which(view)}."
    columns = [_column(view, trial_of(view, number)) for number in numbers]
    rows = [("", *(f"trial {number}" for number in numbers))]
    rows += [(name, *(column[name] for column in columns)) for name in columns[0]]
    return "\n".join([_aligned(rows), *_between(view, numbers)])


def _column(view: StudyView, trial: TrialView) -> dict[str, str]:
    verdict, is_baseline = trial.verdict, trial.number == 0
    ends = [figures.difference(view.metric, end) for end in verdict.interval or ()] if verdict else []
    measured = (len(view.baseline), _items(trial)) if is_baseline or verdict is None else (verdict.seeds[0], verdict.n)
    return {
        "change": "the baseline" if is_baseline else trial_words.change(trial),
        f"{figures.metric_label(view.metric)} (dev)": figures.value(
            view.metric, trial_words.dev_value(view, trial.number)
        ),
        "difference": figures.difference(view.metric, verdict.estimate if verdict else None),
        "95 % interval": " to ".join(ends) or "–",
        "n, seeds": f"{measured[1]} items, {measured[0]}",
        "verdict": "reference" if is_baseline else trial_words.decided(trial),
        "time": figures.duration(trial.wall_s),
        "tokens": figures.count(trial.num_tokens),
    }


def _items(trial: TrialView) -> int:
    return max((job.num_items for job in trial.jobs), default=0)


def _between(view: StudyView, numbers: Sequence[int]) -> list[str]:
    """The difference of two trials' dev values: they were never tested against each other."""
    if len(numbers) != 2 or 0 in numbers:
        return []
    first, second = (trial_words.dev_value(view, number) for number in numbers)
    if first is None or second is None:
        return []
    shown = figures.difference(view.metric, second - first)
    return [
        f"Trial {numbers[1]} differs from trial {numbers[0]} by {shown} on dev. "
        "Each was judged against the baseline, not against the other: no interval is known for this difference."
    ]


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns side by side, long cells folded; where that is too narrow to read, one column after the other."""
    room = (WIDEST - max(len(row[0]) for row in rows)) // (len(rows[0]) - 1) - 2
    if room < NARROWEST:
        singles = ([(row[0], row[index]) for row in rows] for index in range(1, len(rows[0])))
        return "\n\n".join(_aligned(rows) for rows in singles)
    folded = [cells for row in rows for cells in _folded(row, room)]
    widths = [max(map(len, column)) for column in zip(*folded, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in folded)
    return "\n".join(line.rstrip() for line in lines)


def _folded(row: tuple[str, ...], room: int) -> Iterator[tuple[str, ...]]:
    cells = [[row[0]], *(textwrap.wrap(cell, room) for cell in row[1:])]
    return zip_longest(*cells, fillvalue="")


def config(view: StudyView, utterance: Utterance) -> str:
    """The recipe; a setting and who changed it; a trial's settings against the recipe."""
    if view.plan is None:
        return f"{view.id} has no plan yet."
    numbers = [number for number in utterance.trials if number != 0]
    if numbers:
        return "\n".join(_against(view.plan.recipe, trial_of(view, each), utterance.setting) for each in numbers)
    if utterance.setting:
        return _one_setting(view, view.plan.recipe, utterance.setting)
    held = ", ".join(f"{name} = {figures.setting(value)}" for name, value in view.plan.recipe.items())
    model = f"the unmodified model {view.plan.model.path}; trials start from " if view.plan.model else ""
    changes = "; ".join(f"trial {trial.number}: {trial_words.change(trial)}" for trial in view.proposed)
    return f"The baseline is {model}{held}.\nTrials changed: {changes or 'nothing yet'}."


def _one_setting(view: StudyView, recipe: Mapping[str, float | int | str], setting: str) -> str:
    if setting not in recipe:
        return f"The recipe has no {setting}. It has: {', '.join(recipe)}."
    changed = [(trial.number, trial.plan.change) for trial in view.proposed if trial.plan]
    tried = [f"trial {number}: {figures.setting(change[setting])}" for number, change in changed if setting in change]
    held = f"{setting} is {figures.setting(recipe[setting])} in the plan's recipe"
    return f"{held}; {', '.join(tried) or 'no trial changed it'}."


def ran_with(recipe: Mapping[str, float | int | str], trial: TrialView) -> dict[str, float | int | str]:
    """Every setting of a trial: the recipe's, as its own calls and its change have them."""
    if trial.plan is None:
        return dict(recipe)
    called = trial.plan.stages[-1].args if trial.plan.stages else {}
    return {**recipe, **{name: called[name] for name in recipe if name in called}, **trial.plan.change}


def in_full(settings: Mapping[str, float | int | str]) -> str:
    """`learning_rate = 0.0045, batch_size = 8`."""
    return ", ".join(f"{name} = {figures.setting(value)}" for name, value in settings.items())


def _against(recipe: Mapping[str, float | int | str], trial: TrialView, setting: str | None) -> str:
    """A setting of the trial beside the recipe's; else all that differ, and the whole."""
    if trial.plan is None:
        return f"The plan of trial {trial.number} cannot be read."
    ran = ran_with(recipe, trial)
    if setting is not None and setting not in ran:
        return f"Trial {trial.number} has no {setting}. It ran with {in_full(ran)}."
    names = [name for name in ran if ran[name] != recipe.get(name)]
    told = [f"{name} = {figures.setting(ran[name])} (recipe: {_recipes(recipe, name)})" for name in names]
    start = f", from trial {trial.plan.start}" if trial.plan.start else ""
    if setting is None:
        return f"Trial {trial.number}{start}: {', '.join(told) or 'the same recipe'}.\n  In full: {in_full(ran)}."
    same = f"{setting} = {figures.setting(ran[setting])}, as in the recipe"
    return f"Trial {trial.number}{start}: {told[names.index(setting)] if setting in names else same}."


def _recipes(recipe: Mapping[str, float | int | str], name: str) -> str:
    return figures.setting(recipe[name]) if name in recipe else "its default"
