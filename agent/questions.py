"""What the planner may ask or object, and the words that code gives it."""

from collections.abc import Mapping, Sequence
from typing import Any

from nightsmith.record.digest import Contract


class Question(Contract):
    """A question to the person, with the answer that holds if they agree."""

    field: str
    """Field of the spec that is unclear; `goal`: what to do at all."""
    text: str
    """Question, rendered by code."""
    default: str | None = None
    """Answer offered; null: none can be."""


_QUESTIONS: dict[str, tuple[str, str | None]] = {
    "goal": ("What should be trained, evaluated, compared or built?", None),
    "data": ("Which data should be used (a path, or a built-in source such as the Python standard library)?", None),
    "targets": (
        "Which metric should reach which value, for example perplexity below 12?",
        "as low a loss as the budget allows",
    ),
    "model": ("Which model should it start from?", "the configured default model"),
    "methods": ("Train from scratch, or fine-tune an existing model?", "fine-tune"),
    "metric": ("Which metric decides?", "loss on held-out data"),
    "reward": ("How should answers be scored: exact match, unit tests, a schema, a judge or a command?", "exact match"),
    "budget": ("What may it spend: trials, hours, GPU-hours or money?", "8 trials"),
    "value": ("Which value should it reach?", "any improvement over the baseline"),
    "reference": ("Compared with what?", "the baseline"),
}
ASKS: tuple[str, ...] = tuple(_QUESTIONS)
_REASONS: dict[str, str] = {
    "test_training": "Training on the data that the result is tested on says nothing. Name training data of its own.",
    "seed_hunting": "Changing the seed until a run passes selects luck, not a better recipe. Name a change to try.",
    "own_budget": "A study may not raise its own budget or approvals. State the larger budget yourself.",
    "evaluator": "The evaluator and its data are out of a study's reach. Name the metric that you want instead.",
    "missing_source": "The goal itself says that a source does not exist. Name one that does.",
    "sealed_looks": "The sealed test set may be looked at once, not until it passes. Use the dev split for choosing.",
}
REASONS: tuple[str, ...] = tuple(_REASONS)


def question(code: str) -> Question:
    """The question for a field."""
    text, default = _QUESTIONS[code]
    return Question(field=code, text=text, default=default)


def reason(code: str) -> str:
    """Why a goal is blocked, in words."""
    return _REASONS[code]


_NAMES = {"goal": "", "value": "Target: ", "targets": "Target: ", "reference": "Compared with: "}
"""Field -> what its answer is called in the goal's text; else the field's own name."""


def named(questions: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> list[str]:
    """Each answer with the name of what was asked; of another number than the questions, as they are."""
    if len(questions) != len(answers):
        return list(answers)
    names = (_NAMES.get(asked["field"], f"{asked['field'].capitalize()}: ") for asked in questions)
    return [f"{name}{said}" for name, said in zip(names, answers, strict=True)]


def with_answers(goal: str, answers: Sequence[str]) -> str:
    """The goal with the answers below it. The questions stay out: their examples are nobody's words."""
    return "\n".join([goal, *answers])
