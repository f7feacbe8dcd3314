"""What a fine-tuning trains on, token by token: the labels that TRL gets, and rows that are refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import PAIRS, sft_spec, write_pairs
from tiny_models import EOS, TEMPLATE, write_model

from nightsmith.evals.suite import EvidenceAltered
from nightsmith.model.load import load_tokenizer
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.sft_rows import IGNORED, TrainingRows, training_rows
from nightsmith.trainer.spec import SftSpec

EOS_ID = 1
QUESTIONS_ONLY = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
ENDLESS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module", params=[None, TEMPLATE, ENDLESS], ids=["no template", "template", "template, no end"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose tokenizer has no template, one that ends answers, or one that does not."""
    return write_model(tmp_path_factory.mktemp("model"), chat_template=request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("plain"))


def rows_of(spec: SftSpec) -> TrainingRows:
    return training_rows(spec, load_tokenizer(Path(spec.model.path)))


def trained_text(spec: SftSpec, rows: TrainingRows) -> list[str]:
    tokenizer = load_tokenizer(Path(spec.model.path))
    return [tokenizer.decode([label for label in labels if label != IGNORED]) for labels in rows.labels]


def write_conversations(path: Path, conversations: list[list[tuple[str, str]]]) -> str:
    texts = [json.dumps([{"role": r, "content": c} for r, c in turns], ensure_ascii=False) for turns in conversations]
    ids = [f"r{i:03}" for i in range(len(texts))]
    pq.write_table(pa.table({"row_id": ids, "text": texts, "messages": texts}), path)
    return file_digest(path)


def with_conversations(spec: SftSpec, *conversations: list[tuple[str, str]], **changes: Any) -> SftSpec:
    digest = write_conversations(Path(spec.data), list(conversations))
    return spec.model_copy(update={"data_digest": digest, **changes})


def test_answers_with_their_end_are_trained_and_nothing_else_is(tmp_path: Path, model: Path) -> None:
    spec = sft_spec(tmp_path, model)
    rows = rows_of(spec)
    assert [text.strip() for text in trained_text(spec, rows)] == [answer + EOS for _, answer in PAIRS]
    for ids, labels in zip(rows.ids, rows.labels, strict=True):
        assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
        ends = [place for place, label in enumerate(labels) if label == EOS_ID]
        assert ends == [max(place for place, label in enumerate(labels) if label != IGNORED)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pairs=st.lists(st.tuples(st.text(max_size=20), st.text(min_size=1, max_size=20)), min_size=1, max_size=4))
def test_whatever_is_asked_and_answered_each_row_trains_its_answer_up_to_one_stop_token(
    tmp_path: Path, plain: Path, pairs: list[tuple[str, str]]
) -> None:
    spec = sft_spec(tmp_path, plain)
    told = [[("user", q), ("assistant", a)] for q, a in pairs]
    rows = rows_of(with_conversations(spec, *told))
    tokenizer = load_tokenizer(plain)
    for (_, answer), labels in zip(pairs, rows.labels, strict=True):
        kept = [label for label in labels if label != IGNORED]
        assert kept[-1] == EOS_ID
        assert tokenizer.decode(kept[:-1]) == answer


def test_every_answer_of_a_long_conversation_is_trained(tmp_path: Path, model: Path) -> None:
    turns = [("system", "Kurz."), ("user", "Eins?"), ("assistant", "1"), ("user", "Zwei?"), ("assistant", "2")]
    spec = with_conversations(sft_spec(tmp_path, model), turns)
    rows = rows_of(spec)
    trained = "".join(trained_text(spec, rows)).split(EOS)
    assert [each.strip() for each in trained] == ["1", "2", ""]


def test_rows_that_would_teach_nothing_are_refused_by_their_ids(tmp_path: Path, plain: Path) -> None:
    empty, full = [("user", "Frage?"), ("assistant", "")], [("user", "Frage?"), ("assistant", "Ja.")]
    spec = with_conversations(sft_spec(tmp_path, plain), *[empty] * 7, full)
    with pytest.raises(NightsmithError, match=r"Mask audit: 7 row\(s\) \(r000, r001, r002, r003, r004 and 2 more\)"):
        rows_of(spec)


def test_answers_that_a_template_leaves_out_are_trained_all_the_same(tmp_path: Path, plain: Path) -> None:
    spec, tokenizer = sft_spec(tmp_path, plain), load_tokenizer(plain)
    tokenizer.chat_template = QUESTIONS_ONLY
    assert trained_text(spec, training_rows(spec, tokenizer)) == [answer + EOS for _, answer in PAIRS]


def test_a_tokenizer_that_could_never_end_an_answer_is_refused(tmp_path: Path, plain: Path) -> None:
    tokenizer = load_tokenizer(plain)
    tokenizer.eos_token = None
    with pytest.raises(NightsmithError, match="has no end-of-sequence token"):
        training_rows(sft_spec(tmp_path, plain), tokenizer)


def test_rows_that_are_too_long_are_left_out_and_counted(tmp_path: Path, plain: Path) -> None:
    long = [("user", "x" * 200), ("assistant", "y")]
    short = [("user", "x"), ("assistant", "y")]
    spec = with_conversations(sft_spec(tmp_path, plain), long, short, max_len=100)
    assert rows_of(spec).metrics() == {"data/rows": 1, "data/rows_too_long": 1, "data/trained_tokens": 2}
    with pytest.raises(NightsmithError, match=r"2 have more than 100 tokens. Raise max_len"):
        rows_of(with_conversations(spec, long, long))


def test_texts_are_trained_whole_up_to_their_end_and_cut_without_loss(tmp_path: Path, plain: Path) -> None:
    spec = sft_spec(tmp_path, plain, rows="text", max_len=16)
    rows = rows_of(spec)
    assert rows.ids == rows.labels
    assert max(map(len, rows.ids)) <= 16
    tokenizer = load_tokenizer(plain)
    whole = tokenizer.decode([token for ids in rows.ids for token in ids])
    assert whole == "".join(f"{q}\n{a}{EOS}" for q, a in PAIRS)


def test_data_that_were_changed_or_have_no_conversations_are_refused(tmp_path: Path, plain: Path) -> None:
    spec = sft_spec(tmp_path, plain)
    write_pairs(Path(spec.data), PAIRS[:3])
    with pytest.raises(EvidenceAltered, match="was changed"):
        rows_of(spec)
    pq.write_table(pa.table({"row_id": ["a"], "text": ["b"]}), spec.data)
    with pytest.raises(NightsmithError, match="Build the dataset with rows='chat'"):
        rows_of(spec.model_copy(update={"data_digest": file_digest(Path(spec.data))}))
