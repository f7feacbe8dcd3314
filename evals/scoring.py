"""Scores of completions under rewards. Torch-free; code that others wrote runs in a sandbox, never here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from nightsmith.evals.answers import exact_match
from nightsmith.evals.rewards import ExactMatchReward, FormatReward, ReasoningGymReward, Reward
from nightsmith.model.chat_rows import Message
from nightsmith.record.errors import NightsmithError

REGEX_TIMEOUT_S = 0.5
"""Seconds after which a match is given up: patterns can take exponential time."""


@dataclass(frozen=True)
class Sample:
    """A completion to be scored, with what is known of its row."""

    row_id: str
    """The row."""
    source: str
    """Name of the row, `label/file:index`."""
    prompt: tuple[Message, ...]
    """The turns that were answered."""
    reference: str
    """The row's last turn: the answer, or tests of it."""
    completion: str
    """What the model wrote, without its stop token."""


Score = float | None
"""None: the scoring failed, and the completion is left out of training."""
Scorer = Callable[[Sequence[Sample]], list[Score]]
"""Scores in the order of the samples."""


def scorer(reward: Reward) -> Scorer:
    """How a reward scores. Raises NightsmithError where it cannot be scored."""
    match reward:
        case ExactMatchReward():
            return lambda samples: [exact_match(each.completion, each.reference) for each in samples]
        case FormatReward():
            return _format_scorer(reward)
        case ReasoningGymReward():
            return _GymScorer(reward)
        case _:
            raise NotImplementedError


def _format_scorer(reward: FormatReward) -> Scorer:
    pattern = regex.compile(reward.regex, regex.DOTALL)

    def score(sample: Sample) -> Score:
        try:
            return float(pattern.fullmatch(sample.completion, timeout=REGEX_TIMEOUT_S) is not None)
        except TimeoutError:
            return None

    return lambda samples: [score(each) for each in samples]


class _GymScorer:
    """Asks the generator that made a row for the score of its answer."""

    def __init__(self, reward: ReasoningGymReward) -> None:
        from reasoning_gym import create_dataset  # type: ignore[import-untyped]

        given = {name: list(value) if isinstance(value, tuple) else value for name, value in reward.parameters}
        self._reward = reward
        self._dataset: Any = create_dataset(reward.task, seed=reward.seed, size=reward.num_generated, **given)
        self._entries: dict[str, Any] = {}

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [float(self._dataset.score_answer(each.completion, self._entry(each))) for each in samples]

    def _entry(self, sample: Sample) -> Any:
        """The problem that a row was made of, generated again."""
        if sample.source not in self._entries:
            self._entries[sample.source] = self._generated(sample.source)
        entry = self._entries[sample.source]
        if entry is None or str(entry["question"]).strip() != sample.prompt[-1]["content"].strip():
            raise NightsmithError(
                f"Row {sample.row_id} ({sample.source}) is not what reasoning-gym generates for the task "
                f"{self._reward.task!r} with seed {self._reward.seed} and these parameters. Name the task, seed and "
                "parameters that the dataset was built with."
            )
        return entry

    def _generated(self, source: str) -> Any:
        place = source.rpartition(":")[2]
        if not place.isdecimal() or int(place) >= self._reward.num_generated:
            return None
        return self._dataset[int(place)]
