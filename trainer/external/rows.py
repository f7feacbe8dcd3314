"""Training rows as external trainers read them: token ids, mask and labels, made and audited by Nightsmith. Torch-free.

So the answers that are trained are the same whoever trains, and no trainer's own masking is relied on.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

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


def mean_tokens(rows: TrainingRows) -> float:
    """Tokens of a row."""
    return sum(map(len, rows.ids)) / len(rows.ids)


def _shifted(ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    return ids[:-1], labels[1:]
