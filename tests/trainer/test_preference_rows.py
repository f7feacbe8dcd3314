"""Pairs of answers as DPO and reward models read them, token by token, and rows that are refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import EOS, TEMPLATE, write_model

from nightsmith.evals.suite import EvidenceAltered
from nightsmith.model.bytes_tokenizer import bytes_tokenizer
from nightsmith.model.chat_rows import NotConversation
from nightsmith.model.load import load_tokenizer
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.preference_rows import PreferenceRows, preference_rows

QUESTION, YES, NO = "Geht es?", "Ja, gut.", "Nein."
ASKED = [{"role": "system", "content": "Kurz."}, {"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module", params=[None, TEMPLATE], ids=["no template", "template"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of bytes, with a chat template or without."""
    return load_tokenizer(write_model(tmp_path_factory.mktemp("model"), chat_template=request.param))


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def write(folder: Path, **columns: list[Any]) -> tuple[str, str]:
    """A parquet file of these columns, and its digest."""
    path, num_rows = folder / "pairs.parquet", len(columns["chosen"])
    pq.write_table(pa.table({"row_id": [f"r{i:03}" for i in range(num_rows)]} | columns), path)
    return str(path), file_digest(path)


def read(folder: Path, tokenizer: Any, *, max_len: int = 200, **columns: list[Any]) -> PreferenceRows:
    return preference_rows(*write(folder, **columns), max_len, tokenizer)


SAME = [
    {"prompt": [QUESTION], "chosen": [YES], "rejected": [NO]},
    {"prompt": [json.dumps(ASKED[1:])], "chosen": [json.dumps(says(YES))], "rejected": [NO]},
    {"prompt": [ASKED[1:]], "chosen": [says(YES)], "rejected": [says(NO)]},
    {"chosen": [json.dumps(ASKED[1:] + says(YES))], "rejected": [json.dumps(ASKED[1:] + says(NO))]},
    {"prompt": [QUESTION], "chosen": [ASKED[1:] + says(YES)], "rejected": [ASKED[1:] + says(NO)]},
]
"""The same pair as texts, JSON, nested columns, whole conversations, and with its question twice."""


@pytest.mark.parametrize("columns", SAME)
def test_a_pair_is_the_same_however_it_is_written(tmp_path: Path, tokenizer: Any, columns: dict[str, Any]) -> None:
    (pair,) = read(tmp_path, tokenizer, **columns).pairs
    assert tokenizer.decode(pair.chosen).strip() == YES + EOS
    assert tokenizer.decode(pair.rejected).strip() == NO + EOS
    assert QUESTION in tokenizer.decode(pair.prompt)
    (first,) = read(tmp_path, tokenizer, **SAME[0]).pairs
    assert pair == first


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=20), st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_a_pair_holds_one_question_and_both_answers_up_to_one_stop_token(
    tmp_path: Path, tokenizer: Any, asked: str, better: str, worse: str
) -> None:
    rows = {"prompt": [[{"role": "user", "content": asked}]], "chosen": [says(better)], "rejected": [says(worse)]}
    if better == worse:
        return
    (pair,) = read(tmp_path, tokenizer, **rows).pairs
    for answer, ids in ((better, pair.chosen), (worse, pair.rejected)):
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[:-1]) == answer


def test_pairs_that_are_too_long_are_left_out_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    columns = {"prompt": ["a", "b"], "chosen": ["x", "x"], "rejected": ["y" * 90, "y"]}
    rows = read(tmp_path, tokenizer, max_len=60, **columns)
    assert rows.metrics() == {"data/rows": 1, "data/rows_too_long": 1, "data/trained_tokens": 4}
    with pytest.raises(NightsmithError, match="Raise max_len"):
        read(tmp_path, tokenizer, max_len=3, **columns)


def test_pairs_that_prefer_nothing_are_refused_by_their_ids(tmp_path: Path, tokenizer: Any) -> None:
    columns = {"prompt": ["a", "b", "c"], "chosen": ["x", "x", "x"], "rejected": ["y", "x", "x"]}
    with pytest.raises(NightsmithError, match=r"2 row\(s\) \(r001, r002\) have a rejected answer that is the chosen"):
        read(tmp_path, tokenizer, **columns)


def test_a_chosen_answer_must_say_something_and_a_rejected_one_need_not(tmp_path: Path, tokenizer: Any) -> None:
    assert len(read(tmp_path, tokenizer, prompt=["a"], chosen=["x"], rejected=[says("")]).pairs) == 1
    with pytest.raises(NightsmithError, match=r"1 row\(s\) \(r000\) have no token to train on"):
        read(tmp_path, tokenizer, prompt=["a"], chosen=[says("")], rejected=["x"])


@pytest.mark.parametrize(
    "columns",
    [
        {"chosen": [ASKED + says(YES)], "rejected": [ASKED[1:] + says(NO)]},
        {"prompt": [QUESTION], "chosen": [says(YES) + ASKED[1:] + says(YES)], "rejected": [NO]},
        {"chosen": [YES], "rejected": [NO]},
        {"prompt": [QUESTION], "chosen": [[{"role": "robot", "content": "x"}]], "rejected": [NO]},
        {"prompt": [QUESTION], "chosen": [says(YES) + ASKED[1:]], "rejected": [NO]},
    ],
)
def test_what_is_no_pair_of_answers_to_one_question_is_named(tmp_path: Path, tokenizer: Any, columns: Any) -> None:
    with pytest.raises(NotConversation, match="Row r000"):
        read(tmp_path, tokenizer, **columns)


def test_one_answer_that_thinks_beside_one_that_does_not_is_refused_where_the_prompt_says_so(tmp_path: Path) -> None:
    from nightsmith.model.small4_tokenizer import small4_tokenizer

    thinks = [{"role": "assistant", "content": YES, "reasoning_content": "Hm."}]
    with pytest.raises(NightsmithError, match="another prompt"):
        read(tmp_path, small4_tokenizer(), prompt=[QUESTION], chosen=[thinks], rejected=[NO])


def test_files_that_were_changed_or_hold_no_pairs_are_refused(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer()
    path, digest = write(tmp_path, prompt=["a"], chosen=["x"], rejected=["y"])
    with pytest.raises(EvidenceAltered, match="was changed"):
        preference_rows(path, digest[::-1], 50, tokenizer)
    with pytest.raises(NightsmithError, match="no column 'rejected'"):
        preference_rows(*write(tmp_path, prompt=["a"], chosen=["x"]), 50, tokenizer)
