"""A job's rewards as functions that TRL calls, its verifier beside them, and the last answers kept as evidence."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from statistics import fmean
from typing import Any, Self

from nightsmith.evals.rewards import Reward
from nightsmith.evals.scoring import Sample, Score, Scorer, needs_sandbox, scorer
from nightsmith.sandboxes.base import Sandbox
from nightsmith.sandboxes.choice import choose
from nightsmith.trainer.grpo_rows import PromptRows
from nightsmith.trainer.grpo_spec import GrpoSpec
from nightsmith.trainer.journal import Journal
from nightsmith.trainer.monitors import FAILED, VERIFIER

KEPT = 64
"""Answers kept."""


class Rewarding:
    """Scores answers for TRL; what runs in sandboxes is ended with it."""

    rows: PromptRows
    """The prompts that are answered."""

    def __init__(self, spec: GrpoSpec, journal: Journal) -> None:
        """Nothing runs before it is entered. The sandbox in use is written into the journal."""
        self._spec, self._journal, self._open = spec, journal, ExitStack()
        self._scorers: dict[str, Scorer] = {}
        self._verify: Scorer | None = None
        self.latest: deque[dict[str, Any]] = deque(maxlen=KEPT)
        """The last answers with what they were paid."""
        self.failures: deque[str] = deque(maxlen=KEPT)
        """Why the last failed scorings failed."""

    def __enter__(self) -> Self:
        """Start what scores. Raises NightsmithError where a reward cannot be scored here."""
        rewards, verifier = self._spec.rewards, self._spec.verifying
        with ExitStack() as opened:
            sandbox = self._sandbox([*rewards, *([verifier] if verifier else [])])
            enter = [opened.enter_context(scorer(each, sandbox, self.failures.append)) for each in rewards]
            self._scorers = dict(zip(names(rewards), enter, strict=True))
            self._verify = opened.enter_context(scorer(verifier, sandbox)) if verifier else None
            self._open = opened.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def _sandbox(self, rewards: Sequence[Reward]) -> Sandbox | None:
        if not any(map(needs_sandbox, rewards)):
            return None
        sandbox = choose(self._spec.allow_plain_process)
        self._journal.write("sandbox", backend=sandbox.name, isolates=sandbox.isolates)
        return sandbox

    def functions(self) -> list[Any]:
        """One function for each reward, in the spec's order, named as the reward."""
        return [self._function(name, each) for name, each in self._scorers.items()]

    def _function(self, name: str, score: Scorer) -> Callable[..., list[Score]]:
        def function(prompts: list[str], completion_ids: list[list[int]], log_metric: Any, **rest: Any) -> list[Score]:  # noqa: ARG001
            samples = [self._sample(*each) for each in zip(prompts, completion_ids, strict=True)]
            scores = score(samples)
            log_metric(FAILED, sum(each is None for each in scores) / len(scores))
            self._keep(name, samples, scores, log_metric)
            return scores

        function.__name__ = name
        return function

    def _keep(self, name: str, samples: Sequence[Sample], scores: list[Score], log_metric: Any) -> None:
        """Remember the last answers; with the first reward also what the verifier says of them."""
        first = name == next(iter(self._scorers))
        if not first:
            for kept, value in zip(reversed(self.latest), reversed(scores), strict=False):
                kept["rewards"][name] = value
            return
        verified: list[Score] = [None] * len(samples) if self._verify is None else self._verify(samples)
        if known := [value for value in verified if value is not None]:
            log_metric(VERIFIER, fmean(known))
        for sample, paid, found in zip(samples, scores, verified, strict=True):
            self.latest.append(asdict(sample) | {"rewards": {name: paid}, "verifier": found})

    def _sample(self, row_id: str, ids: list[int]) -> Sample:
        prompt, stops = self.rows.prompts[row_id], self.rows.chat.stop_ids
        told = ids[: next((place for place, token in enumerate(ids) if token in stops), len(ids))]
        text = self.rows.chat.answer_text(told)
        return Sample(row_id, prompt.source, prompt.messages, prompt.reference, text)


def names(rewards: Sequence[Reward]) -> list[str]:
    """A name for each: its kind, numbered where it occurs again."""
    kinds = [reward.kind for reward in rewards]
    return [
        kind if kinds.index(kind) == place else f"{kind}_{kinds[: place + 1].count(kind)}"
        for place, kind in enumerate(kinds)
    ]
