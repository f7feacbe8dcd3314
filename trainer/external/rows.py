"""Training rows as external trainers read them: token ids, mask and labels, made and audited by Nightsmith. Torch-free.

So the answers that are trained are the same whoever trains, and no trainer's own masking is relied on.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.preference_rows import Pair, PreferenceRows
from nightsmith.trainer.sft_rows import TrainingRows


def write(rows: TrainingRows, path: Path, *, shifted: bool) -> None:
    """Write a parquet file with columns `input_ids`, `attention_mask` and `labels`.

    `shifted`: the label of a token is the one after it, as trainers need that shift nothing themselves; a row is then
    one shorter.
    """
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    pairs = [_shifted(*each) if shifted else each for each in zip(rows.ids, rows.labels, strict=True)]
    kind = arrow.list_(arrow.int32())
    columns = {
        "input_ids": [ids for ids, _ in pairs],
        "attention_mask": [[1] * len(ids) for ids, _ in pairs],
        "labels": [labels for _, labels in pairs],
    }
    parquet.write_table(arrow.table({name: arrow.array(values, kind) for name, values in columns.items()}), path)


def write_pairs(rows: PreferenceRows, tokenizer: Any, path: Path) -> None:
    """Write a parquet file of pairs with columns `prompt`, `chosen` and `rejected`, as texts.

    TRL, which axolotl trains pairs by, cuts texts into tokens itself: a prompt, then the prompt with each answer. What
    it would cut must be the audited tokens.

    Raises:
        NightsmithError: some pairs would be cut into other tokens.
    """
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    texts = [_texts(pair, tokenizer) for pair in rows.pairs]
    if other := sum(_cut(each, tokenizer) != pair for each, pair in zip(texts, rows.pairs, strict=True)):
        raise NightsmithError(
            f"{other} of {len(texts)} pairs would be cut into other tokens by axolotl than by the model's template: "
            "their texts hold control tokens, or the tokenizer adds some. Leave such rows out, or use backend 'trl'."
        )
    columns = {name: [getattr(each, name) for each in texts] for name in ("prompt", "chosen", "rejected")}
    parquet.write_table(arrow.table(columns), path)


@dataclass(frozen=True)
class PairText:
    """A pair as texts that are joined to be cut into tokens."""

    prompt: str
    """Up to where the answer begins."""
    chosen: str
    """The better answer, its stop token included."""
    rejected: str
    """The worse one."""


def _texts(pair: Pair, tokenizer: Any) -> PairText:
    """Texts of a pair's tokens, without the first one where the tokenizer puts it there by itself."""
    begins = tokenizer("")["input_ids"][:1]
    prompt = pair.prompt[1:] if begins and pair.prompt[:1] == begins else pair.prompt
    return PairText(*(str(tokenizer.decode(ids)) for ids in (prompt, pair.chosen, pair.rejected)))


def _cut(texts: PairText, tokenizer: Any) -> Pair:
    """The tokens that TRL 1.9 makes of them; it ends answers with EOS where they do not end so."""
    prompt = list(tokenizer(texts.prompt)["input_ids"])
    end = tokenizer.eos_token or ""
    answers = (each if each.endswith(end) else each + end for each in (texts.chosen, texts.rejected))
    chosen, rejected = (list(tokenizer(texts.prompt + answer)["input_ids"])[len(prompt) :] for answer in answers)
    return Pair(prompt, chosen, rejected)


def _shifted(ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    return ids[:-1], labels[1:]
