"""Pairs of answers, one preferred to the other, as token ids, audited before the first step. Torch-free.

Columns `row_id`, `prompt`, `chosen`, `rejected`. A cell is a JSON list of turns, or a text, which is one turn: the
user's as a prompt, the assistant's as an answer. `chosen` and `rejected` may be whole conversations that differ in
their last answer alone; `prompt` may then be absent.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from nightsmith.model.chat_rows import ChatFormat, Message, NotConversation, TokenRow, parse_messages
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.sft_rows import audit
from nightsmith.trainer.training_file import named, read_columns


@dataclass(frozen=True)
class Pair:
    """One row, as token ids."""

    prompt: list[int]
    """Up to where the answer begins."""
    chosen: list[int]
    """The better answer, up to and including its stop token."""
    rejected: list[int]
    """The worse one."""


@dataclass(frozen=True)
class PreferenceRows:
    """All pairs of a file."""

    pairs: tuple[Pair, ...]
    num_too_long: int = 0
    """Pairs left out because one of their answers ends beyond `max_len`."""

    def metrics(self) -> dict[str, float]:
        """What the audit found, as metrics."""
        return {
            "data/rows": float(len(self.pairs)),
            "data/rows_too_long": float(self.num_too_long),
            "data/trained_tokens": float(sum(len(pair.chosen) + len(pair.rejected) for pair in self.pairs)),
        }


def preference_rows(data: str, digest: str, max_len: int, tokenizer: Any) -> PreferenceRows:
    """The pairs of a file.

    Args:
        data: path of a parquet file.
        digest: its SHA-256.
        max_len: longest prompt with an answer, in tokens.
        tokenizer: of the model that is trained.

    Raises:
        EvidenceAltered: the file is not the one with that digest.
        NightsmithError: a row is no pair, prefers nothing, or could teach never to stop; or no pair is short enough.
    """
    hint = "Preferences need the columns row_id, chosen and rejected, and prompt where those are answers alone."
    table = read_columns(data, digest, ("row_id", "chosen", "rejected"), optional=("prompt",), hint=hint)
    names, chat = table["row_id"], ChatFormat(tokenizer)
    both = [
        _conversations(*row) for row in zip(names, table["prompt"], table["chosen"], table["rejected"], strict=True)
    ]
    better, worse = (chat.last_answers([pair[side] for pair in both]) for side in (0, 1))
    rendered = list(zip(names, better, worse, strict=True))
    fitting = [row for row in rendered if max(len(row[1]), len(row[2])) <= max_len]
    _audit(fitting, chat.stop_ids)
    if not fitting:
        raise NightsmithError(
            f"No pair of {data} is short enough: {len(rendered)} have more than {max_len} tokens. Raise max_len, or "
            "shorten the rows."
        )
    return PreferenceRows(tuple(_pair(*row) for row in fitting), len(rendered) - len(fitting))


def _audit(rows: Sequence[tuple[str, TokenRow, TokenRow]], stop_ids: Sequence[int]) -> None:
    """Refuse what prefers nothing, asks two questions, or has an answer that teaches nothing or never to stop."""
    if equal := [name for name, better, worse in rows if better.ids == worse.ids]:
        raise NightsmithError(
            f"Pair audit: {named(equal)} have a rejected answer that is the chosen one. Leave such rows out."
        )
    if apart := [name for name, better, worse in rows if _prompt(better) != _prompt(worse)]:
        raise NightsmithError(
            f"Pair audit: {named(apart)} are read with another prompt before either answer (one of them thinks, the "
            "other does not?). Leave such rows out."
        )
    audit([(name, better) for name, better, _ in rows], stop_ids)
    audit([(name, worse) for name, _, worse in rows], stop_ids, may_be_empty=True)


def _pair(_name: str, better: TokenRow, worse: TokenRow) -> Pair:
    return Pair(_prompt(better), list(better.ids[better.answer_start :]), list(worse.ids[worse.answer_start :]))


def _prompt(row: TokenRow) -> list[int]:
    return list(row.ids[: row.answer_start])


def _conversations(name: str, prompt: str, chosen: str, rejected: str) -> tuple[Sequence[Message], Sequence[Message]]:
    """The two conversations of a row. Raises NotConversation."""
    asked = _turns(prompt, "user") if prompt else []
    better, worse = (_whole(name, asked, _turns(answer, "assistant")) for answer in (chosen, rejected))
    if better[:-1] != worse[:-1]:
        raise NotConversation(
            f"Row {name}: chosen and rejected differ before their last answer. A pair is two answers to one question."
        )
    return better, worse


def _turns(cell: str, role: str) -> list[dict[str, Any]]:
    """The turns of a cell; a text is one turn of that role."""
    try:
        value: Any = json.loads(cell)
    except ValueError:
        value = None
    if isinstance(value, list) and value and all(isinstance(turn, dict) and "role" in turn for turn in value):
        return cast("list[dict[str, Any]]", value)
    return [{"role": role, "content": cell}]


def _whole(name: str, asked: list[dict[str, Any]], answer: list[dict[str, Any]]) -> tuple[Message, ...]:
    """A conversation with its answer; one that already begins with a question is left as it is."""
    turns = answer if answer[0]["role"] != "assistant" else [*asked, *answer]
    return parse_messages(json.dumps(turns), name)
