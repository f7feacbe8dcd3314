"""The planner's prompts: a constant part, then the goal or the study as fenced, truncated data."""

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from nightsmith.agent import conversing
from nightsmith.agent.conversing import ConverseRequest, Mention
from nightsmith.agent.literals import Candidate, windows
from nightsmith.agent.proposals import ProposeRequest

Message = dict[str, str]
"""One chat message: role and content."""
_FENCE_RE = re.compile(r"</?(?:goal|said)>|<\|[a-z_]+\|>|\[L\d+", re.IGNORECASE)
"""What a text must not contain in a prompt: a fence, the chat template's control tokens, and marks of literals."""


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("nightsmith.agent", "prompts"), undefined=StrictUndefined, autoescape=False)


def _render(name: str, **values: object) -> str:
    return _environment().get_template(f"{name}.j2").render(**values)


def marked(goal: str, candidates: tuple[Candidate, ...]) -> str:
    """The goal as data, with each literal's id behind it: control tokens taken out, a long middle left out."""
    return " […] ".join(_marked(start, part, candidates) for start, part in windows(goal))


def _marked(start: int, text: str, candidates: tuple[Candidate, ...]) -> str:
    pieces, position = list[str](), 0
    for candidate in sorted(candidates, key=lambda candidate: candidate.span[1]):
        end = candidate.span[1] - start
        if 0 < end <= len(text):
            pieces += [_FENCE_RE.sub(" ", text[position:end]), _mark(candidate, candidates)]
            position = end
    return "".join([*pieces, _FENCE_RE.sub(" ", text[position:])])


def _mark(candidate: Candidate, candidates: tuple[Candidate, ...]) -> str:
    """A literal's id; with what it says, where that is not simply the text in front of it."""
    (begin, end), others = candidate.span, (other.span for other in candidates if other.span != candidate.span)
    contains = any(
        begin < other_end and other_begin < end and begin <= other_begin for other_begin, other_end in others
    )
    said = f" = {_FENCE_RE.sub(' ', candidate.shown)}" if candidate.rule or contains else ""
    return f" [{candidate.id}{said}]"


def interpret_messages(goal: str, candidates: tuple[Candidate, ...]) -> list[Message]:
    """Messages that ask for a goal's labels."""
    return _messages("interpret", goal=marked(goal, candidates))


def propose_messages(request: ProposeRequest) -> list[Message]:
    """Messages that ask for the next trials."""
    return _messages(
        "propose",
        objective=request.objective,
        settings=[f"{state.name}={_short(state.value)}" for state in request.settings],
        data=request.data,
        trials=[trial.line for trial in request.history],
        left=request.trials_left,
        k=request.k,
    )


def converse_messages(request: ConverseRequest, mentions: tuple[Mention, ...]) -> list[Message]:
    """Messages that ask what somebody meant."""
    said = _FENCE_RE.sub(" ", conversing.shown(request.text))
    lines = [_FENCE_RE.sub(" ", mention.line) for mention in mentions]
    numbers = request.trials
    trials = f"trials {min(numbers)}-{max(numbers)}" if numbers else "no trials" if request.study else "no study"
    return _messages("converse", system="converse_system", said=said, trials=trials, mentions=lines)


def repair_messages(answer: str, error: str) -> list[Message]:
    """The turn after an answer that cannot stand: the answer, and what is wrong with it."""
    return [{"role": "assistant", "content": answer}, {"role": "user", "content": f"Error: {error} Answer again."}]


def _messages(name: str, system: str = "system", **values: object) -> list[Message]:
    return [
        {"role": "system", "content": _render(system)},
        {"role": "user", "content": _render(name, **values)},
    ]


def _short(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def chat_text(messages: list[Message]) -> str:
    """Messages in the chat template of SmolLM2, up to where the answer begins."""
    turns = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    return f"{turns}<|im_start|>assistant\n"
