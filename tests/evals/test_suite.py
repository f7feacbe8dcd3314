"""Suites as files: deterministic rows, verified item scores."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import SimulatedRecipes, scored

from nightsmith.evals.suite import (
    EvidenceAltered,
    EvidenceMissing,
    Items,
    read_items,
    read_scored,
    select_rows,
    write_items,
)
from nightsmith.evals.types import SuiteSpec
from nightsmith.record.digest import file_digest


def write_rows(path, rows: dict[str, str]) -> SuiteSpec:
    pq.write_table(pa.table({"row_id": list(rows), "text": list(rows.values())}), path)
    return SuiteSpec(data=str(path), data_digest=file_digest(path), split="dev", max_items=3, max_bytes=5)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(["e", "a", "d", "b", "c"]))
def test_a_suite_takes_the_first_rows_by_id_whatever_the_order_of_the_file(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("suite") / "dev.parquet"
    suite = write_rows(path, {row: f"text of {row}" for row in order})
    assert [row.row_id for row in select_rows(suite)] == ["a", "b", "c"]


def test_rows_are_cut_at_bytes_and_empty_texts_are_left_out(tmp_path):
    suite = write_rows(tmp_path / "dev.parquet", {"a": "", "b": "äöü", "c": "x"})
    assert [row.content for row in select_rows(suite)] == ["äöü".encode()[:5], b"x"]


def test_evaluation_data_with_other_bytes_are_refused_as_altered(tmp_path):
    suite = write_rows(tmp_path / "dev.parquet", {"a": "one"})
    write_rows(tmp_path / "dev.parquet", {"a": "two"})
    with pytest.raises(EvidenceAltered, match="changed"):
        select_rows(suite)
    (tmp_path / "dev.parquet").unlink()
    with pytest.raises(EvidenceMissing, match="absent"):
        select_rows(suite)


def test_item_scores_survive_the_file_exactly(tmp_path):
    items = SimulatedRecipes(np.random.default_rng(0)).items()
    digest = write_items(tmp_path / "items.parquet", items)
    again = read_items(tmp_path / "items.parquet", digest)
    for column in ("row_id", "nll_nats", "num_tokens", "num_bytes"):
        assert np.array_equal(getattr(again, column), getattr(items, column))
    assert list(tmp_path.iterdir()) == [tmp_path / "items.parquet"]


def test_changed_absent_and_unreadable_item_scores_are_told_apart(tmp_path):
    path = tmp_path / "items.parquet"
    items = SimulatedRecipes(np.random.default_rng(0)).items()
    digest = write_items(path, items)
    with pytest.raises(EvidenceAltered):
        read_items(path, "0" * 64)
    path.write_bytes(b"not parquet")
    with pytest.raises(EvidenceMissing, match="row_id"):
        read_items(path)
    path.unlink()
    with pytest.raises(EvidenceMissing, match="absent"):
        read_items(path, digest)


def test_an_evaluation_that_claims_another_number_of_items_is_altered(tmp_path):
    items = SimulatedRecipes(np.random.default_rng(0)).items()
    evaluation = scored(items).evaluation
    digest = write_items(tmp_path / "items.parquet", items)
    good = evaluation.model_copy(update={"items_digest": digest})
    assert len(read_scored(tmp_path, good).items) == len(items)
    with pytest.raises(EvidenceAltered, match="items"):
        read_scored(tmp_path, good.model_copy(update={"num_items": 3}))


@pytest.mark.parametrize(
    ("row_id", "num_bytes", "message"),
    [(["a", "a"], [1, 1], "twice"), (["a", "b"], [1, 0], "without tokens or bytes"), (["a", "b"], [1], "one each")],
)
def test_items_that_cannot_be_scores_are_refused(row_id, num_bytes, message):
    with pytest.raises(ValueError, match=message):
        Items(np.array(row_id), np.ones(len(row_id)), np.ones(len(row_id)), np.array(num_bytes))
