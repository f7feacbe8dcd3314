"""Fills in baseline and winner side by side, from item scores whose digests are checked. Read for report and `show`."""

from dataclasses import dataclass

from nightsmith.agent.side_view import AnswerPair, Figure, MetricPair, OwnFigures, SideBySide, SplitPair
from nightsmith.agent.view import JobView, StudyView
from nightsmith.evals import stats
from nightsmith.evals.suite import ChatRow, Items, Scored, read_scored, select_conversations
from nightsmith.evals.types import SuiteSpec
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows
from nightsmith.trainer.spec import TrainSpec

NUM_ANSWERS = 10
PROMPT_CHARS, ANSWER_CHARS = 600, 300
ORDER = ("exact_match", "token_f1", "accuracy", "margin", "output_tokens", "loss", "perplexity", "bits_per_byte")


def with_sides(ws: Workspace, view: StudyView) -> StudyView:
    """The view with baseline and winner side by side, where both were evaluated and their files are as recorded."""
    trial = view.winner or _best_screened(view)
    if not trial:
        return view
    dev = _pair(ws, "dev", _reference(view), _winner(view, trial))
    sealed = _pair(ws, "sealed", _sealed(view, 0), _sealed(view, trial))
    splits = [split for split in (dev, sealed) if split is not None]
    if not splits:
        return view
    shown = SideBySide(
        trial=trial,
        is_winner=trial == view.winner,
        splits=tuple(_compared(view, split) for split in splits),
        answers=tuple(_answers(splits[-1])),
        answers_split=splits[-1].suite.split,
    )
    return view.model_copy(update={"sides": shown})


def own_figures(ws: Workspace, key: str) -> OwnFigures | None:
    """What a job's checkpoint scored; None where it was not evaluated, or its items are not as recorded."""
    try:
        suite, scored = _suite(ws, key), _scored(ws, key)
    except NightsmithError:
        return None
    if suite is None:
        return None
    known = [name for name in ORDER if stats.measures(scored.items, name)]
    return OwnFigures(
        split=suite.split,
        num_items=len(scored.items),
        suite_digest=scored.evaluation.suite_digest,
        metrics={name: figure(scored.items, name) for name in known},
    )


def _best_screened(view: StudyView) -> int:
    """The trial with the best dev value, better than the baseline or not; 0 where none has any."""
    sign = 1 if view.lower_is_better else -1
    screened = ((trial.screen.value, trial.number) for trial in view.proposed if trial.screen)
    return min(((sign * value, number) for value, number in screened if value is not None), default=(0.0, 0))[1]


@dataclass(frozen=True, eq=False)
class _Split:
    """Both sides on one suite: the baseline, the winner."""

    suite: SuiteSpec
    sides: tuple[Scored, Scored]


def _reference(view: StudyView) -> JobView | None:
    """The baseline's run: the one that was unsealed, else its first."""
    runs = [job for job in view.jobs if job.trial == 0 and job.role in ("baseline", "calibration")]
    return next((job for job in runs if job.key == view.reference_key), runs[0] if runs else None)


def _winner(view: StudyView, trial: int) -> JobView | None:
    """The trial's run: the one that was unsealed, else the one that was screened."""
    runs = [job for job in view.jobs if job.trial == trial and job.role in ("trial", "confirmation")]
    return next((job for job in runs if job.key == view.winner_key), runs[0] if runs else None)


def _sealed(view: StudyView, trial: int) -> JobView | None:
    return next((job for job in view.jobs if job.role == "sealed" and job.trial == trial), None)


def _pair(ws: Workspace, split: str, before: JobView | None, after: JobView | None) -> _Split | None:
    """Both runs' items, or None where one is missing, was changed, or was evaluated on other items."""
    if before is None or after is None or not before.scores or before.suite_digest != after.suite_digest:
        return None
    suite = _suite(ws, before.key)
    try:
        sides = (_scored(ws, before.key), _scored(ws, after.key))
    except NightsmithError:
        return None
    return _Split(suite, sides) if suite is not None and suite.split == split else None


def _suite(ws: Workspace, key: str) -> SuiteSpec | None:
    spec = jobrows.get(ws, key).spec
    return spec.dev_suite if isinstance(spec, TrainSpec) else spec.suite


def _scored(ws: Workspace, key: str) -> Scored:
    result = jobrows.get(ws, key).result
    if result is None or result.evaluation is None:
        raise NightsmithError(f"job {key} has no evaluation")
    return read_scored(ws.run_dir(key), result.evaluation)


def _compared(view: StudyView, split: _Split) -> SplitPair:
    before, after = (side.items for side in split.sides)
    names = sorted(ORDER, key=lambda name: name != view.metric)
    known = [name for name in names if stats.measures(before, name) and stats.measures(after, name)]
    pairs = (MetricPair(metric=name, before=figure(before, name), after=figure(after, name)) for name in known)
    return SplitPair(split=split.suite.split, num_items=len(after), metrics=tuple(pairs))


def figure(items: Items, metric: str) -> Figure:
    """A metric of one checkpoint by itself, with its two-sided 95 % interval over items."""
    effect = stats.own_effect(items, metric)
    low, high = effect.lower(0.025), effect.upper(0.025)
    return Figure(value=effect.estimate, low=low, high=high)


def _answers(split: _Split) -> list[AnswerPair]:
    """The first rows by row id, with both answers; nothing where the evaluation data were changed since."""
    before, after = (side.items for side in split.sides)
    if before.answer is None or after.answer is None or before.exact_match is None or after.exact_match is None:
        return []
    try:
        rows = {row.row_id: row for row in select_conversations(split.suite)}
    except NightsmithError:
        return []
    found: list[AnswerPair] = []
    for index, row_id in enumerate(map(str, after.row_id[:NUM_ANSWERS])):
        if row := rows.get(row_id):
            found.append(
                AnswerPair(
                    row_id=row_id,
                    prompt=_cut(_prompt(row), PROMPT_CHARS),
                    reference=_cut(row.messages[-1]["content"], ANSWER_CHARS),
                    before=_cut(before.answer[index], ANSWER_CHARS),
                    after=_cut(after.answer[index], ANSWER_CHARS),
                    before_right=bool(before.exact_match[index]),
                    after_right=bool(after.exact_match[index]),
                )
            )
    return found


def _prompt(row: ChatRow) -> str:
    """The user's one turn as it is, several turns with their roles."""
    asked = row.messages[:-1]
    return asked[0]["content"] if len(asked) == 1 else "\n".join(f"{turn['role']}: {turn['content']}" for turn in asked)


def _cut(text: str, num_chars: int) -> str:
    return text if len(text) <= num_chars else f"{text[:num_chars]}…"
