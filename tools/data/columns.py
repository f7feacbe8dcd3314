"""Which columns of a table are prompt and answer: proposed from their names and samples, with the reason in words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from nightsmith.record.digest import Contract
from nightsmith.tools.arguments import did_you_mean
from nightsmith.tools.base import ToolError
from nightsmith.tools.data import column_names
from nightsmith.tools.data.conversations import OVERFLOW, ChatColumns, as_text, turns_of
from nightsmith.tools.data.preferences import PreferenceColumns, pair
from nightsmith.tools.data.readers import Record
from nightsmith.tools.data.sources import Source

LABEL_VALUES, LABEL_CHARS, LABEL_SHARE = 50, 40, 0.2
"""A label has at most so many different values, so short, and so few for its rows."""
FEW_ROWS = 8
"""With fewer rows than this, what values have in common is chance."""
FAR_SHORTER = 0.25
"""Of unnamed texts, one that is so much shorter than the others is a remark beside them."""
SHOWN_CHARS = 60

_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ][\d:.+Z-]+)?|\d\d?[./-]\d\d?[./-]\d{2,4}([ ,]+[\d:]+)?|\d\d?:\d\d(:\d\d)?")
_CODE = re.compile(r"[0-9a-fA-F-]{16,}|[A-Za-z]{1,6}[-_#/]?\d{2,}")
_ADDRESS = re.compile(r"https?://\S+|\S+@\S+\.\w+")
_NUMBER = re.compile(r"[-+]?[\d.,]*\d\s*%?")

Kind = Literal["turns", "text", "label", "number", "id", "empty"]


class ColumnProposal(Contract):
    """Columns that a conversation would be made of."""

    columns: ChatColumns
    """The columns."""
    why: str
    """Why these, in words: `prompt = 'kunde_frage' (named like a question), completion = 'antw' (…)`."""


class PairProposal(Contract):
    """Columns that a pair of answers would be made of."""

    columns: PreferenceColumns
    """The columns."""
    why: str
    """Which these are, in words."""


@dataclass(frozen=True)
class _Column:
    """What names and samples say about one column."""

    name: str
    kind: Kind
    leaning: float
    """Positive: named like a prompt; negative: like an answer."""
    mean_chars: float
    num_values: int
    """Different values in the sample."""


def propose(source: Source, sample: Sequence[Record]) -> ColumnProposal:
    """Propose the columns of prompt and answer.

    In this order: a column with lists of turns; names, in several spellings and languages; what is left over where one
    of the two is named; a text with its label; two texts in the order of the table.

    Args:
        source: where the table is from.
        sample: its first records.

    Raises:
        ToolError: the source has no columns, or they cannot be told apart; says which there are.
    """
    if source.kind == "text":
        raise ToolError(
            f"{source.id} is text without columns, and pairs of prompt and answer are needed. Give a CSV, JSONL or "
            "parquet file with two columns, or train on plain texts (rows='text')."
        )
    if not sample:
        raise ToolError(f"{source.id} has no rows below its header. Give a table with a row for each example.")
    names = dict.fromkeys(name for record in sample for name in record if name != OVERFLOW)
    found = [_column(name, sample) for name in names]
    return _dialogue(found) or _pair(source, found)


def propose_pairs(source: Source, sample: Sequence[Record]) -> PairProposal:
    """Propose the columns of prompt, chosen and rejected answer, by their names; the prompt also by what is left.

    Args:
        source: where the table is from.
        sample: its first records.

    Raises:
        ToolError: the source has no such columns, or no record makes a pair; says which columns there are.
    """
    names = dict.fromkeys(name for record in sample for name in record if name != OVERFLOW)
    found = [_column(name, sample) for name in names]
    sides = [_side(found, kinds) for kinds in (column_names.CHOSEN, column_names.REJECTED)]
    if source.kind == "text" or sides[0] is None or sides[1] is None:
        raise ToolError(_no_pairs(source, found, sides))
    rest = [c for c in found if c not in sides and not column_names.is_aside(c.name)]
    system = next((c for c in rest if column_names.is_named(c.name, column_names.SYSTEMS) and c.kind != "empty"), None)
    asked = [c for c in rest if c is not system]
    prompt = max((c for c in asked if c.leaning > 0), key=_likelihood, default=None)
    if prompt is None and any(side.kind != "turns" for side in sides if side):
        prompt = _only([c for c in asked if c.kind == "text"])
    columns = PreferenceColumns(
        prompt=prompt.name if prompt else None, chosen=sides[0].name, rejected=sides[1].name,
        system=system.name if system else None,
    )  # fmt: skip
    if not any(pair(record, columns) for record in sample):
        raise ToolError(_no_pairs(source, found, sides))
    parts = [f"{role} = {_shown(name)}" for role, name in columns.model_dump(exclude_none=True).items()]
    return PairProposal(columns=columns, why=f"{', '.join(parts)} (pairs of answers, by the names of their columns)")


def _side(found: list[_Column], kinds: frozenset[str]) -> _Column | None:
    """The column that is named so: `chosen` rather than `score_chosen`."""
    named = [c for c in found if column_names.says(c.name, kinds) and not column_names.is_aside(c.name)]
    return min(named, key=lambda c: (c.kind in ("number", "id"), len(column_names.words(c.name))), default=None)


def _no_pairs(source: Source, found: list[_Column], sides: Sequence[_Column | None]) -> str:
    if source.kind == "text":
        have = "it is text without columns"
    elif None in sides:
        have = f"its columns are {_listed([c.name for c in found])}"
    else:
        named = " and ".join(_shown(c.name) for c in sides if c)
        have = f"no row has a prompt and two different answers to it in {named}, of {_listed([c.name for c in found])}"
    return (
        f"{source.id} has no pairs of answers, of which one is preferred: {have}. Needed are a chosen and a rejected "
        "answer, and the prompt where these are not whole conversations: name the columns (`columns`, or headers such "
        "as prompt, chosen and rejected) of a CSV, JSONL or parquet file."
    )


def require_columns(source: Source, columns: ChatColumns | PreferenceColumns, sample: Sequence[Record]) -> None:
    """Refuse columns that were given but are not there."""
    have = list(dict.fromkeys(name for record in sample for name in record if name != OVERFLOW))
    for name in columns.names():
        if name not in have:
            raise ToolError(
                f"{source.id} has no column {_shown(name)}.{did_you_mean(name, have)} Columns: {_listed(have)}."
            )


def _dialogue(found: list[_Column]) -> ColumnProposal | None:
    turns = [column for column in found if column.kind == "turns"]
    turns = [c for c in turns if not column_names.says(c.name, column_names.REJECTED)] or turns
    if not turns:
        return None
    best = max(turns, key=lambda column: column_names.is_named(column.name, column_names.DIALOGUES))
    return ColumnProposal(
        columns=ChatColumns(messages=best.name), why=f"messages = {_shown(best.name)} (lists of turns)"
    )


def _pair(source: Source, found: list[_Column]) -> ColumnProposal:
    system = next((c for c in found if column_names.is_named(c.name, column_names.SYSTEMS) and c.kind != "empty"), None)
    usable = [c for c in found if c is not system and c.kind not in ("empty", "turns") and not _is_aside(c)]
    prompt = max((c for c in usable if c.leaning > 0), key=_likelihood, default=None)
    completion = max((c for c in usable if c.leaning < 0), key=_likelihood, default=None)
    reasons = ["named like a question", "named like an answer"]
    if prompt is None or completion is None:
        rest = [c for c in usable if c not in (prompt, completion)]
        prompt, completion, reasons = _by_values(source, rest, prompt, completion, reasons)
    context = _context(usable, prompt, completion)
    parts = [f"prompt = {_shown(prompt.name)} ({reasons[0]})", f"completion = {_shown(completion.name)} ({reasons[1]})"]
    parts += [f"context = {_shown(context.name)} (goes with the prompt)"] if context else []
    parts += [f"system = {_shown(system.name)} (named so)"] if system else []
    columns = ChatColumns(
        prompt=prompt.name, completion=completion.name, context=context.name if context else None,
        system=system.name if system else None,
    )  # fmt: skip
    return ColumnProposal(columns=columns, why=", ".join(parts))


def _by_values(
    source: Source, rest: list[_Column], prompt: _Column | None, completion: _Column | None, reasons: list[str]
) -> tuple[_Column, _Column, list[str]]:
    """Find what the names do not tell."""
    labels = [c for c in rest if c.kind == "label"]
    if prompt is None and completion is None and len(two := _texts(rest, 2)) == 2:
        return two[0], two[1], ["the first of two text columns", "the second of two text columns"]
    texts = _texts(rest, 1)
    if prompt is None and (only := _only(texts)):
        prompt, reasons[0] = only, "the only text column"
        rest, texts = [c for c in rest if c is not only], []
    if prompt and completion is None and (only := _only(texts) or _only(labels) or _only(rest)):
        completion, reasons[1] = only, _why_left(only)
    if prompt is None or completion is None:
        raise ToolError(_unclear(source, prompt, completion, rest))
    return prompt, completion, reasons


def _texts(rest: list[_Column], needed: int) -> list[_Column]:
    """Text columns in the order of the table; if more than needed, without those far shorter than the ones needed."""
    texts = [c for c in rest if c.kind == "text"]
    lengths = sorted((c.mean_chars for c in texts), reverse=True)
    return [c for c in texts if c.mean_chars >= FAR_SHORTER * lengths[needed - 1]] if len(texts) > needed else texts


def _only(found: list[_Column]) -> _Column | None:
    return found[0] if len(found) == 1 else None


def _why_left(column: _Column) -> str:
    if column.kind == "label":
        return f"{column.num_values} different short values: a label"
    return "the only text column beside it" if column.kind == "text" else "the only column beside it"


def _unclear(source: Source, prompt: _Column | None, completion: _Column | None, rest: list[_Column]) -> str:
    missing = "prompt" if prompt is None else "answer"
    if prompt is None and completion is None:
        missing = "prompt and which the answer"
    known = prompt or completion
    beside = f" beside {_shown(known.name)}" if known else ""
    told = f"it cannot be told which column is the {missing}{beside}: {_listed([c.name for c in rest])}"
    if not rest:
        told = f"no column is left to be the {missing}{beside}"
    return (
        f"{source.id}: {told}. Pairs need a prompt and an answer: name the two columns (`columns`, or headers such as "
        "prompt and completion), or train on plain texts (rows='text')."
    )


def _context(usable: list[_Column], prompt: _Column, completion: _Column) -> _Column | None:
    return next(
        (c for c in usable if c not in (prompt, completion) and column_names.is_named(c.name, column_names.CONTEXTS)),
        None,
    )


def _likelihood(column: _Column) -> tuple[float, bool, float]:
    return abs(column.leaning), column.kind in ("text", "label"), column.mean_chars


def _is_aside(column: _Column) -> bool:
    """About the row, not part of it. A telling name outweighs values that look like ids: answers may be codes."""
    if column_names.is_aside(column.name):
        return True
    return column.kind == "id" and abs(column.leaning) < column_names.MEDIUM


def _column(name: str, sample: Sequence[Record]) -> _Column:
    values = [record.get(name) for record in sample]
    texts = [text for value in values if (text := as_text(value)) is not None]
    return _Column(
        name=name, kind=_kind(values, texts), leaning=column_names.leaning(name),
        mean_chars=sum(map(len, texts)) / max(1, len(texts)), num_values=len(set(texts)),
    )  # fmt: skip


def _kind(values: Sequence[object], texts: list[str]) -> Kind:
    if 2 * sum(turns_of(value) is not None for value in values) > len(values):
        return "turns"
    if not texts:
        return "empty"
    if _is_id(texts):
        return "id"
    few = len(set(texts)) <= min(LABEL_VALUES, max(2, LABEL_SHARE * len(texts)))
    if few and len(texts) >= FEW_ROWS and max(map(len, texts)) <= LABEL_CHARS:
        return "label"
    return "number" if all(_NUMBER.fullmatch(text.strip()) for text in texts) else "text"


def _is_id(texts: list[str]) -> bool:
    """Dates, addresses, codes that never come twice, and numbers that only rise."""
    stripped = [text.strip() for text in texts]
    if all(_DATE.fullmatch(text) or _ADDRESS.fullmatch(text) for text in stripped):
        return True
    if len(texts) < FEW_ROWS or len(set(stripped)) < len(texts):
        return False
    if all(text.isdecimal() and len(text) < 20 for text in stripped):
        return all(int(before) < int(after) for before, after in pairwise(stripped))
    return all(_CODE.fullmatch(text) for text in stripped)


def _shown(name: str) -> str:
    text = repr(name)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…'"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"
