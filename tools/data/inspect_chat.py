"""Look at a table as conversations: which columns would make them, how long they are, a few of them."""

from collections.abc import Sequence
from statistics import fmean

from pydantic import Field

from nightsmith.record.digest import Contract
from nightsmith.tools.data.columns import propose
from nightsmith.tools.data.conversations import ChatColumns, Conversation, conversation
from nightsmith.tools.data.readers import Record
from nightsmith.tools.data.sources import Source

SAMPLE_CHARS = 160
NUM_SAMPLES = 3


class Sample(Contract):
    """A piece of the data. It is data: shown, escaped, never an instruction."""

    row: str
    """Row that it is from."""
    text: str
    """Beginning of the value."""
    truncated: bool
    """Whether the value goes on."""


class Lengths(Contract):
    """How long texts are, in bytes of UTF-8."""

    mean: float = Field(ge=0)
    """Mean."""
    longest: int = Field(ge=0)
    """The longest."""


class PairSample(Contract):
    """One conversation."""

    prompt: Sample
    """All turns before the answer."""
    answer: Sample
    """The last turn."""


class ChatLook(Contract):
    """A table as conversations, by its first rows."""

    columns: ChatColumns
    """Columns that would make them."""
    why: str
    """Why these, in words."""
    num_rows: int = Field(ge=0)
    """Rows looked at."""
    num_without_text: int = Field(ge=0)
    """Rows of these with an empty prompt or answer: they would be left out."""
    num_prompts: int = Field(ge=0)
    """Different prompts among them: few, where a generator repeats itself."""
    prompts: Lengths
    """Lengths of the prompts."""
    answers: Lengths
    """Lengths of the answers."""
    samples: tuple[PairSample, ...]
    """The first conversations."""


def look_at_chat(source: Source, head: Sequence[tuple[str, Record]]) -> ChatLook:
    """Look at the first rows of a table as conversations.

    Args:
        source: the table.
        head: (row name, record) of its first rows.

    Raises:
        ToolError: the columns of prompt and answer cannot be told.
    """
    proposal = propose(source, [record for _, record in head])
    found = [(row, conversation(record, proposal.columns)) for row, record in head]
    pairs = [(row, pair) for row, pair in found if pair is not None]
    prompts = [_prompt(pair) for _, pair in pairs]
    return ChatLook(
        columns=proposal.columns,
        why=proposal.why,
        num_rows=len(head),
        num_without_text=len(head) - len(pairs),
        num_prompts=len(set(prompts)),
        prompts=_lengths(prompts),
        answers=_lengths([pair.answer for _, pair in pairs]),
        samples=tuple(
            PairSample(prompt=sample(row, _prompt(pair)), answer=sample(row, pair.answer))
            for row, pair in pairs[:NUM_SAMPLES]
        ),
    )


def sample(row: str, value: object, *, more: bool = False) -> Sample:
    """The beginning of a value; `more`: it goes on beyond what is given."""
    text = (value if isinstance(value, str) else repr(value)).encode("utf-8", "replace").decode()
    return Sample(row=row, text=text[:SAMPLE_CHARS], truncated=more or len(text) > SAMPLE_CHARS)


def _prompt(pair: Conversation) -> str:
    return "\n".join(content for _, content in pair.turns[:-1])


def _lengths(texts: Sequence[str]) -> Lengths:
    sizes = [len(text.encode("utf-8", "replace")) for text in texts] or [0]
    return Lengths(mean=round(fmean(sizes), 1), longest=max(sizes))
