"""Suites as files: which rows are scored, and the item scores that an evaluation left behind. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightsmith.evals.types import Evaluation, SuiteSpec
from nightsmith.model.chat_rows import Message, Tool, parse_messages, parse_tools
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import Damaged, NightsmithError

Floats = NDArray[np.float64]
COLUMNS = ("row_id", "nll_nats", "num_tokens", "num_bytes")
ANSWER_COLUMNS = ("exact_match", "token_f1", "output_tokens")
"""Figures of generated answers; beside them stands the column `answer`."""
PAIR_COLUMNS = ("accuracy", "margin")
"""Figures of pairs of answers."""
FIGURES = (*ANSWER_COLUMNS, *PAIR_COLUMNS)


class EvidenceMissing(Damaged):
    """A file that an evaluation rests on is absent or unreadable: the judge says UNVERIFIED."""


class EvidenceAltered(Damaged):
    """A file that an evaluation rests on is not the one that was recorded: the judge says TAMPERED."""


@dataclass(frozen=True)
class Row:
    """One row of a suite as the model reads it."""

    row_id: str
    content: bytes
    """At most `max_bytes` bytes of the text's UTF-8, cut without regard to characters (the model is byte-level)."""


@dataclass(frozen=True)
class ChatRow:
    """One conversation of a suite; its last turn is the reference answer."""

    row_id: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    """What the model may call."""
    rejected: str | None = None
    """A worse answer, in pairs."""


@dataclass(frozen=True, eq=False)
class Items:
    """Scores of the items (documents) of a suite, one entry an item, held in the order of their row ids.

    Raises ValueError on unequal lengths, a row id that occurs twice, and items without tokens or bytes.
    """

    row_id: NDArray[np.str_]
    nll_nats: Floats
    """Negative log-likelihood of the item's bytes (chat: of its answer), summed, in nats."""
    num_tokens: Floats
    num_bytes: Floats
    exact_match: Floats | None = None
    """1 where the generated answer is the reference answer, else 0 (`evals.answers`); null: nothing was generated."""
    token_f1: Floats | None = None
    output_tokens: Floats | None = None
    """Tokens of the generated answer, its stop token not counted."""
    answer: tuple[str, ...] | None = None
    accuracy: Floats | None = None
    """1 where the reference answer is likelier than the rejected one, else 0; null: no pairs were compared."""
    margin: Floats | None = None
    """Log-likelihood of the reference answer less that of the rejected one, in nats."""

    def __post_init__(self) -> None:
        row_id = np.asarray(self.row_id, dtype=np.str_)
        order = np.argsort(row_id, kind="stable")
        for name in (*COLUMNS[1:], *FIGURES):
            if getattr(self, name) is not None:
                values = np.asarray(getattr(self, name), dtype=np.float64)
                _require_one_each(name, values.size, row_id.size)
                object.__setattr__(self, name, values[order])
        if self.answer is not None:
            _require_one_each("answer", len(self.answer), row_id.size)
            object.__setattr__(self, "answer", tuple(self.answer[int(i)] for i in order))
        object.__setattr__(self, "row_id", row_id[order])
        if len(np.unique(row_id)) != len(row_id):
            raise ValueError("a row id occurs twice among the items; ids name one row each.")
        if np.any(self.num_tokens <= 0) or np.any(self.num_bytes <= 0):
            raise ValueError("an item without tokens or bytes cannot be scored; leave empty texts out.")

    def __len__(self) -> int:
        return len(self.row_id)


@dataclass(frozen=True, eq=False)
class Scored:
    """An evaluation together with its verified item scores: what the judge compares."""

    evaluation: Evaluation
    items: Items


def select_rows(suite: SuiteSpec) -> list[Row]:
    """The rows that a suite scores: the first `max_items` non-empty ones by row id, whatever the file's order.

    Raises EvidenceMissing without the file and EvidenceAltered where its bytes are not those of the suite.
    """
    rows = _sorted_rows(suite, "text")
    return [Row(row, text.encode()[: suite.max_bytes]) for row, text in rows[: suite.max_items]]


def select_conversations(suite: SuiteSpec) -> list[ChatRow]:
    """The conversations that a chat suite scores: the first `max_items` by row id whose answer is not empty.

    Raises as `select_rows`, and NightsmithError for a row that is no conversation with an answer, or no pair where the
    suite compares pairs.
    """
    rows: list[ChatRow] = []
    for row_id, text, tools, rejected in _sorted_rows(suite, "messages", optional=("tools", "rejected")):
        messages = parse_messages(text, row_id)
        if messages[-1]["content"].strip():
            worse = _rejected(rejected, messages, row_id) if suite.pairs else None
            rows.append(ChatRow(row_id, messages, parse_tools(tools, row_id), worse))
        if len(rows) == suite.max_items:
            break
    return rows


def _rejected(text: str, messages: tuple[Message, ...], row_id: str) -> str:
    """The worse answer of a row. Raises NightsmithError where it has none, or one to another question."""
    worse = parse_messages(text, row_id) if text else ()
    if not worse or worse[:-1] != messages[:-1]:
        raise NightsmithError(
            f"Row {row_id} has no rejected answer to its prompt, and the suite compares pairs. Build the data with "
            "rows='preference', or evaluate them with pairs false."
        )
    return worse[-1]["content"]


def _sorted_rows(suite: SuiteSpec, column: str, optional: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """(row id, value, values of the optional columns or "") of each row of the suite's file with a value, by row id."""
    path = Path(suite.data)
    _require(path, suite.data_digest, "evaluation data")
    table = _read_table(path, ["row_id", column], optional=optional)
    absent = [""] * len(table["row_id"])
    rows = zip(*(table.get(name, absent) for name in ("row_id", column, *optional)), strict=True)
    return sorted(tuple(str(value or "") for value in row) for row in rows if row[1])


def write_items(path: Path, items: Items) -> str:
    """Write item scores as parquet by atomic rename; returns the file's SHA-256."""
    columns: dict[str, Any] = {
        "row_id": items.row_id.tolist(),
        "nll_nats": items.nll_nats,
        "num_tokens": items.num_tokens.astype(np.int64),
        "num_bytes": items.num_bytes.astype(np.int64),
    }
    if items.answer is not None:
        columns |= {name: getattr(items, name) for name in ANSWER_COLUMNS} | {"answer": list(items.answer)}
    columns |= {name: figure for name in PAIR_COLUMNS if (figure := getattr(items, name)) is not None}
    partial = path.with_suffix(".partial")
    _pyarrow("pyarrow.parquet").write_table(_pyarrow("pyarrow").table(columns), partial)
    partial.replace(path)
    return file_digest(path)


def read_items(path: Path, digest: str | None = None) -> Items:
    """Item scores of a run; with `digest`, only if the file's SHA-256 equals it.

    Raises EvidenceMissing where the file is absent or not item scores, EvidenceAltered where the digest differs.
    """
    _require(path, digest, "item scores")
    try:
        table = _read_table(path, list(COLUMNS), optional=[*FIGURES, "answer"])
        found: dict[str, Any] = {name: np.asarray(values) for name, values in table.items() if name != "answer"}
        return Items(**found, answer=tuple(table["answer"]) if "answer" in table else None)
    except ValueError as error:
        raise EvidenceMissing(f"{path} does not hold item scores ({error}). Evaluate the checkpoint again.") from error


def read_scored(run: Path, evaluation: Evaluation) -> Scored:
    """An evaluation of a run folder with its items, digest and item count verified. Raises as `read_items`."""
    items = read_items(run / evaluation.items, evaluation.items_digest)
    if len(items) != evaluation.num_items:
        raise EvidenceAltered(
            f"{run / evaluation.items} holds {len(items)} items; {evaluation.num_items} were recorded."
        )
    return Scored(evaluation, items)


def _require(path: Path, digest: str | None, what: str) -> None:
    if not path.is_file():
        raise EvidenceMissing(f"The {what} {path} is absent. Restore the file or run the evaluation again.")
    if digest is not None and (found := file_digest(path)) != digest:
        raise EvidenceAltered(
            f"The {what} {path} has SHA-256 {found[:12]}, recorded was {digest[:12]}: it was changed."
        )


def _require_one_each(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"{name} has {found} entries for {wanted} row ids; one each is needed.")


def _read_table(path: Path, columns: list[str], optional: Sequence[str] = ()) -> dict[str, list[Any]]:
    try:
        parquet = _pyarrow("pyarrow.parquet")
        there = set(parquet.read_schema(path).names)
        asked = columns + [name for name in optional if name in there]
        return parquet.read_table(path, columns=asked).to_pydict()
    except (_pyarrow("pyarrow").ArrowException, KeyError) as error:
        raise EvidenceMissing(f"{path} is not parquet with columns {', '.join(columns)}: {error}") from error


def _pyarrow(module: str) -> Any:
    return import_module(module)  # loaded when first needed (0.3 s); untyped, as pyarrow ships no stubs
