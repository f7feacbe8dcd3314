"""Training rows of a fine-tuning: token ids and labels, audited before the first step. Torch-free.

What is not trained has the label -100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightsmith.model.chat_rows import ChatFormat, TokenRow, parse_messages, parse_tools
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.spec import SftSpec
from nightsmith.trainer.training_file import named, read_columns

IGNORED = -100


@dataclass(frozen=True)
class TrainingRows:
    """All rows of a run, one list of ids and one of labels a row."""

    ids: tuple[list[int], ...]
    labels: tuple[list[int], ...]
    num_too_long: int = 0
    """Rows left out because they are longer than `max_len`."""

    def metrics(self) -> dict[str, float]:
        """What the audit found, as metrics."""
        trained = sum(label != IGNORED for labels in self.labels for label in labels)
        return {
            "data/rows": float(len(self.ids)),
            "data/rows_too_long": float(self.num_too_long),
            "data/trained_tokens": float(trained),
        }


def training_rows(spec: SftSpec, tokenizer: Any) -> TrainingRows:
    """The rows that a spec trains on.

    Raises:
        EvidenceAltered: the data are not those with the spec's digest.
        NightsmithError: the data are absent, or a row could teach nothing or never to stop.
    """
    rows = _chat(spec, tokenizer) if spec.rows == "chat" else _text(spec, tokenizer)
    if not rows.ids:
        raise NightsmithError(
            f"No row of {spec.data} is short enough: {rows.num_too_long} have more than {spec.max_len} tokens. "
            "Raise max_len, or shorten the rows."
        )
    return rows


def _chat(spec: SftSpec, tokenizer: Any) -> TrainingRows:
    table = _columns(spec, "messages", optional=("tools",))
    names, texts, tools = table["row_id"], table["messages"], table["tools"]
    chat = ChatFormat(tokenizer)
    rows = chat.render(list(map(parse_messages, texts, names)), list(map(parse_tools, tools, names)))
    rendered = [(name, row) for name, found in zip(names, rows, strict=True) for row in found]
    fitting = [(name, row) for name, row in rendered if len(row) <= spec.max_len]
    audit(fitting, chat.stop_ids)
    return TrainingRows(
        tuple(list(row.ids) for _, row in fitting),
        tuple(_labels(row) for _, row in fitting),
        len(rendered) - len(fitting),
    )


def audit(rows: Sequence[tuple[str, TokenRow]], stop_ids: Sequence[int], *, may_be_empty: bool = False) -> None:
    """Refuse rows in which nothing but a stop token is trained, and rows in which an answer's end is not trained."""
    empty = [name for name, row in rows if not _says_something(row, stop_ids)]
    if empty and not may_be_empty:
        raise NightsmithError(
            f"Mask audit: {named(empty)} have no token to train on: the answer is empty. Leave such rows out."
        )
    endless = [name for name, row in rows if not _ends(row, stop_ids)]
    if endless:
        raise NightsmithError(
            f"Mask audit: {named(endless)} have an answer whose end is not trained, so the model would learn not to "
            "stop. The model's chat template must end an assistant turn with a token such as EOS."
        )


def _says_something(row: TokenRow, stop_ids: Sequence[int]) -> bool:
    return any(trained and token not in stop_ids for token, trained in zip(row.ids, row.trained, strict=True))


def _ends(row: TokenRow, stop_ids: Sequence[int]) -> bool:
    """Whether every trained stretch holds a stop token as its last token but white space."""
    stretches: list[list[int]] = [[]]
    for token, trained in zip(row.ids, row.trained, strict=True):
        if trained:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return all(set(stretch) & set(stop_ids) for stretch in stretches if stretch)


def _labels(row: TokenRow) -> list[int]:
    return [token if trained else IGNORED for token, trained in zip(row.ids, row.trained, strict=True)]


def _text(spec: SftSpec, tokenizer: Any) -> TrainingRows:
    """Every token of every text and its EOS, cut into rows of `max_len`: no row holds two texts."""
    texts = _columns(spec, "text")["text"]
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    pieces = [
        tokens[start : start + spec.max_len]
        for ids in tokenizer(texts)["input_ids"]
        for tokens in [[*ids, *end]]
        for start in range(0, len(tokens), spec.max_len)
    ]
    rows = tuple(piece for piece in pieces if len(piece) > 1)
    return TrainingRows(rows, rows)


def _columns(spec: SftSpec, column: str, optional: tuple[str, ...] = ()) -> dict[str, list[str]]:
    hint = f"Build the dataset with rows={spec.rows!r}."
    return read_columns(spec.data, spec.data_digest, ("row_id", column), optional=optional, hint=hint)
