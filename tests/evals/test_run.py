import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from uniform_model import FakeUniformModel

from nightsmith.evals.run import cut, evaluate, score, summarise
from nightsmith.evals.suite import EvidenceAltered, Row, read_items
from nightsmith.evals.types import SuiteSpec
from nightsmith.model.presets import BOS, PRESETS
from nightsmith.model.small4 import build
from nightsmith.record.digest import file_digest

torch.set_num_threads(1)
TEXTS = {"b": "import os\n" * 30, "a": "naïve 日本語", "c": "x", "d": ""}


class FakeBigramModel(nn.Module):
    """Sure that each byte is followed by the next one in value: shows which token predicts which."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        del use_cache
        return SimpleNamespace(logits=100.0 * F.one_hot((input_ids + 1) % 256, 259).float())


def suite(folder: Path, **settings: int) -> SuiteSpec:
    path = folder / "dev.parquet"
    pq.write_table(pa.table({"row_id": list(TEXTS), "text": list(TEXTS.values())}), path)
    return SuiteSpec(data=str(path), data_digest=file_digest(path), split="dev", **settings)


@given(st.binary(min_size=1, max_size=200), st.integers(1, 50))
def test_every_byte_is_predicted_exactly_once_from_the_token_before_it(content: bytes, seq_len: int) -> None:
    windows = list(cut([BOS, *content], seq_len))
    assert [token for window in windows for token in window[1:]] == list(content)
    assert windows[0][0] == BOS
    assert all(later[0] == earlier[-1] for earlier, later in pairwise(windows))
    assert all(2 <= len(window) <= seq_len + 1 for window in windows)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8), st.integers(1, 64))
def test_a_uniform_model_needs_log2_of_the_vocabulary_bits_for_any_text(texts: list[bytes], seq_len: int) -> None:
    items = score(FakeUniformModel(), [Row(f"{i:03}", text) for i, text in enumerate(texts)], seq_len)
    metrics = summarise(items)
    assert metrics["bits_per_byte"] == pytest.approx(math.log2(259), rel=1e-6)
    assert metrics["perplexity"] == pytest.approx(259, rel=1e-5)
    assert items.num_bytes.tolist() == [len(text) for text in texts]


def test_a_model_that_is_right_needs_no_bits_and_one_that_is_wrong_pays() -> None:
    counting = bytes(range(256))
    sure = score(FakeBigramModel(), [Row("a", counting)], 16)
    # Only the first byte is not foreseen: BOS is followed by byte 1 in this model, not by byte 0.
    assert sure.nll_nats[0] == pytest.approx(100.0, rel=1e-5)
    assert score(FakeBigramModel(), [Row("a", counting[::-1])], 16).nll_nats[0] == pytest.approx(100.0 * 256, rel=1e-3)


def test_an_evaluation_accounts_for_every_item_byte_and_digest(tmp_path: Path) -> None:
    spec = suite(tmp_path, max_bytes=100, seq_len=32)
    evaluation = evaluate(FakeUniformModel(), spec, tmp_path, checkpoint_digest="c" * 64)
    items = read_items(tmp_path / evaluation.items, evaluation.items_digest)
    assert items.row_id.tolist() == ["a", "b", "c"]
    assert items.num_bytes.tolist() == items.num_tokens.tolist() == [len("naïve 日本語".encode()), 100, 1]
    assert evaluation.num_items == 3
    assert evaluation.suite_digest == spec.digest()
    assert evaluation.metrics == summarise(items)


def test_equal_weights_give_bit_equal_items_whatever_the_models_mode(tmp_path: Path) -> None:
    model, spec = build(PRESETS["nano"], seed=0), suite(tmp_path)
    digests = {
        evaluate(model.train(train), spec, tmp_path, checkpoint_digest="c").items_digest
        for train in (False, True, False)
    }
    assert len(digests) == 1
    assert evaluate(build(PRESETS["nano"], seed=1), spec, tmp_path, checkpoint_digest="c").items_digest not in digests


def test_scores_do_not_depend_on_which_windows_share_a_batch() -> None:
    model = build(PRESETS["nano"], seed=0)
    rows = [Row(f"{i:03}", (b"def f%d(x):\n    return x\n" % i) * (i + 1)) for i in range(12)]
    together = score(model, rows, 64)
    alone = score(model, rows, 64, batch_tokens=64)
    np.testing.assert_allclose(together.nll_nats, alone.nll_nats, rtol=1e-5)


def test_a_changed_suite_file_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    spec, model = suite(tmp_path), FakeUniformModel()
    with Path(spec.data).open("ab") as file:
        file.write(b"!")
    with pytest.raises(EvidenceAltered, match="was changed"):
        evaluate(model, spec, tmp_path, checkpoint_digest="c")
    assert model.seen == []
    assert not (tmp_path / "items.parquet").exists()


def test_progress_counts_all_windows_and_may_end_the_evaluation(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    evaluate(
        FakeUniformModel(), suite(tmp_path, seq_len=8), tmp_path, checkpoint_digest="c",
        on_batch=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls[-1][0] == calls[-1][1] == math.ceil(300 / 8) + math.ceil(len(TEXTS["a"].encode()) / 8) + 1
    with pytest.raises(KeyboardInterrupt):
        evaluate(FakeUniformModel(), suite(tmp_path), tmp_path, checkpoint_digest="c", on_batch=_interrupt)


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt(done, total)
