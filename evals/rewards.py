"""Rewards: what a completion is worth, said as data. Scoring them: `evals.scoring`. Torch-free."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nightsmith.record.digest import Contract

Parameter = bool | int | float | str | tuple[float | str, ...] | None
"""Value of a generator's parameter."""


class _Reward(Contract):
    """What all rewards have in common."""

    weight: float = 1.0
    """Factor of this reward in the sum that is trained on."""


class ReasoningGymReward(_Reward):
    """The score that a seeded generator of reasoning-gym gives the answer to its problem, 0 to 1, often in parts."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    """Discriminator of the union."""
    task: str = Field(min_length=1)
    """Task of reasoning-gym."""
    parameters: tuple[tuple[str, Parameter], ...] = ()
    """What differs from the task's defaults."""
    seed: int
    """Seed that the rows were generated with."""
    num_generated: int = Field(gt=0)
    """Rows that were generated; a row's `source` ends with its place among them."""


class ExactMatchReward(_Reward):
    """1 where the completion is the row's reference answer but for white space (`evals.answers`), else 0."""

    kind: Literal["exact_match"] = "exact_match"
    """Discriminator of the union."""


class FormatReward(_Reward):
    """1 where the whole completion has a form, else 0."""

    kind: Literal["format"] = "format"
    """Discriminator of the union."""
    pattern: str | None = None
    """Regular expression (Python's syntax) that the whole completion matches; `.` also matches line breaks."""
    tags: tuple[str, ...] = ()
    """Names of XML-like tags: the completion is one element of each, in this order, with white space between them."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.pattern is None) == (not self.tags):
            raise ValueError("a format is either a pattern or tags: set one of them")
        if bad := [tag for tag in self.tags if not re.fullmatch(r"[A-Za-z_][\w.-]*", tag)]:
            raise ValueError(f"{bad[0]!r} is no tag: write the name alone, e.g. 'answer'")
        try:
            re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from error
        return self

    @property
    def regex(self) -> str:
        """The pattern, or what the tags stand for."""
        if self.pattern is not None:
            return self.pattern
        return r"\s*" + r"\s*".join(f"<{tag}>(?:(?!</?{tag}>).)*</{tag}>" for tag in self.tags) + r"\s*"


class UnitTestsReward(_Reward):
    """1 where Python code in the completion passes the row's tests, else 0; each runs in a sandbox of its own.

    The tests are the row's reference answer: statements that raise where the code is wrong (`evals.exam`). Code is that
    of the first fenced block, or the whole completion without one.
    """

    kind: Literal["unit_tests"] = "unit_tests"
    """Discriminator of the union."""
    timeout_s: float = Field(default=5.0, gt=0, le=600)
    """Seconds for code and tests of one completion."""


class CommandReward(_Reward):
    """What a Python file of the user or the agent says: `reward(prompt, completion, reference) -> float`.

    The file runs in one long-lived process in a sandbox; the trainer never imports it.
    """

    kind: Literal["command"] = "command"
    """Discriminator of the union."""
    path: str
    """Absolute path of the file."""
    file_digest: str
    """SHA-256 of the file."""
    timeout_s: float = Field(default=1.0, gt=0, le=600)
    """Seconds for one call; a slower one is a failed scoring, and the process is started anew."""


Reward = Annotated[
    ReasoningGymReward | ExactMatchReward | FormatReward | UnitTestsReward | CommandReward, Field(discriminator="kind")
]
"""Any reward."""
