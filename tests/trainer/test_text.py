from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.evals.suite import EvidenceAltered
from nightsmith.model.presets import BOS, EOS
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.text import Windows, pack, read_tokens


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=10))
def test_packing_keeps_every_byte_between_its_documents_marks(texts: list[bytes]) -> None:
    stream = pack(texts).tolist()
    documents: list[list[int]] = []
    for token in stream:
        if token == BOS:
            documents.append([])
        elif token != EOS:
            documents[-1].append(token)
    assert [bytes(document) for document in documents] == texts
    assert stream.count(BOS) == stream.count(EOS) == len(texts)


@given(st.integers(20, 300), st.integers(2, 16), st.integers(1, 5), st.integers(0, 99))
def test_every_window_comes_once_an_epoch_in_an_order_that_changes(
    num_tokens: int, seq_len: int, batch_size: int, seed: int
) -> None:
    windows = Windows(np.arange(num_tokens, dtype=np.uint16), seq_len, batch_size, seed)
    steps = -(-2 * windows.count // batch_size)
    starts = [int(row[0]) // seq_len for step in range(steps) for row in windows.batch(step)]
    for epoch in (0, 1):
        assert sorted(starts[epoch * windows.count : (epoch + 1) * windows.count]) == list(range(windows.count))


@given(st.integers(0, 40), st.integers(0, 99))
def test_a_batch_depends_on_seed_and_step_alone_not_on_what_was_read_before(step: int, seed: int) -> None:
    tokens = np.arange(100, dtype=np.uint16)
    fresh, used = Windows(tokens, 8, 3, seed), Windows(tokens, 8, 3, seed)
    for earlier in range(step):
        used.batch(earlier)
    assert np.array_equal(fresh.batch(step), used.batch(step))


def test_windows_overlap_by_the_one_token_that_is_predicted_next() -> None:
    windows = Windows(np.arange(33, dtype=np.uint16), 8, 4, seed=0)
    rows = sorted(windows.batch(0).tolist())
    assert [row[0] for row in rows] == [0, 8, 16, 24]
    assert all(later[0] == earlier[-1] for earlier, later in pairwise(rows))


def test_seeds_order_the_data_differently() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    assert not np.array_equal(Windows(tokens, 8, 8, 0).batch(0), Windows(tokens, 8, 8, 1).batch(0))


def test_too_little_text_is_refused_with_what_would_do() -> None:
    with pytest.raises(NightsmithError, match="10 tokens, fewer than the 129 of one window"):
        Windows(np.zeros(10, dtype=np.uint16), 128, 8, 0)


def test_a_training_file_is_read_only_if_it_is_the_one_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"row_id": ["a"], "text": ["hé"]}), path)
    assert read_tokens(path, file_digest(path)).tolist() == [BOS, *"hé".encode(), EOS]
    with pytest.raises(EvidenceAltered, match="was changed"):
        read_tokens(path, "0" * 64)
    with pytest.raises(NightsmithError, match="is absent"):
        read_tokens(tmp_path / "none.parquet", "0" * 64)
