"""Scores of completions under rewards. Torch-free; code that others wrote runs in a sandbox, never here."""

import math
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from nightsmith.evals.answers import exact_match
from nightsmith.evals.exam import Exam
from nightsmith.evals.rewards import (
    CommandReward,
    ExactMatchReward,
    FormatReward,
    ReasoningGymReward,
    Reward,
    UnitTestsReward,
)
from nightsmith.evals.suite import EvidenceAltered
from nightsmith.model.chat_rows import Message
from nightsmith.record.digest import sha256
from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes.answering import PRINTED_CHARS
from nightsmith.sandboxes.base import Limits, Sandbox, SandboxSpec
from nightsmith.sandboxes.worker import ReplyStatus, Worker

REGEX_TIMEOUT_S = 0.5
"""Seconds after which a match is given up: patterns can take exponential time."""
WORKER_CPU_S = 36_000
"""Processor seconds of a reward's process over a whole job; each call has a limit of its own."""
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


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
Tell = Callable[[str], None]
"""Told why a scoring failed."""


def needs_sandbox(reward: Reward) -> bool:
    """Whether a reward runs code that was written by others."""
    return isinstance(reward, UnitTestsReward | CommandReward)


@contextmanager
def scorer(reward: Reward, sandbox: Sandbox | None = None, tell: Tell = lambda _: None) -> Generator[Scorer]:
    """How a reward scores; processes that it needs live as long as the context.

    Args:
        reward: what completions are paid for.
        sandbox: where the code of others runs; None: rewards that need one are refused.
        tell: called with the reason of each failed scoring.

    Raises:
        NightsmithError: it cannot be scored here: no sandbox, or its file cannot be loaded.
    """
    match reward:
        case ExactMatchReward():
            yield lambda samples: [exact_match(each.completion, each.reference) for each in samples]
        case FormatReward():
            yield _format_scorer(reward, tell)
        case ReasoningGymReward():
            yield _GymScorer(reward)
        case UnitTestsReward():
            with Exam(_required(sandbox), reward.timeout_s) as exam:
                yield _TestScorer(exam, tell)
        case CommandReward():
            with Worker(
                _source(reward), "reward", _required(sandbox), SandboxSpec(limits=Limits(cpu_s=WORKER_CPU_S)),
                filename=Path(reward.path).name,
            ) as worker:  # fmt: skip
                yield _CommandScorer(reward, worker, tell)


def _required(sandbox: Sandbox | None) -> Sandbox:
    if sandbox is None:
        raise NightsmithError("This reward runs code, and no sandbox was chosen for it (sandboxes.choice.choose).")
    return sandbox


def _format_scorer(reward: FormatReward, tell: Tell) -> Scorer:
    pattern = regex.compile(reward.regex, regex.DOTALL)

    def score(sample: Sample) -> Score:
        try:
            return float(pattern.fullmatch(sample.completion, timeout=REGEX_TIMEOUT_S) is not None)
        except TimeoutError:
            tell(f"the pattern took more than {REGEX_TIMEOUT_S:g} s")
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


@dataclass(frozen=True)
class _TestScorer:
    """Has the code of each completion sit its row's tests."""

    exam: Exam
    tell: Tell

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._passes(each) for each in samples]

    def _passes(self, sample: Sample) -> Score:
        ended = self.exam.sit(code_of(sample.completion), sample.reference)
        if not ended.passed:
            self.tell(ended.why[-300:])
        return None if ended.passed is None else float(ended.passed)


@dataclass(frozen=True)
class _CommandScorer:
    """Asks the function `reward` of a file, in its process, once for each completion."""

    reward: CommandReward
    worker: Worker
    tell: Tell

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(each) for each in samples]

    def _score(self, sample: Sample) -> Score:
        asked = {"prompt": list(sample.prompt), "completion": sample.completion, "reference": sample.reference}
        reply = self.worker.call(asked, self.reward.timeout_s)
        if reply.status is not ReplyStatus.OK:
            self.tell(f"{reply.status}: {reply.detail[-300:]}")
            return None
        if len(reply.printed) >= PRINTED_CHARS:
            self.tell(f"it printed {PRINTED_CHARS} characters or more: {reply.printed[:80]!r} …")
            return None
        if not isinstance(reply.value, int | float) or not math.isfinite(reply.value):
            self.tell(f"it returned {str(reply.value)[:80]!r}, which is no finite number")
            return None
        return float(reply.value)


def code_of(completion: str) -> str:
    """The first fenced block, or everything where there is none."""
    found = _FENCED.search(completion)
    return found[1] if found else completion


def _source(reward: CommandReward) -> str:
    """The file's text. Raises EvidenceAltered where it is another one by now."""
    try:
        content = Path(reward.path).read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise NightsmithError(f"The reward {reward.path} cannot be read as Python: {error}.") from error
    if sha256(content) != reward.file_digest:
        raise EvidenceAltered(
            f"The reward {reward.path} is not the file that the spec names ({reward.file_digest[:12]}): it was "
            "changed. Plan the run anew."
        )
    return text
