"""Datasets of pairs of answers: what tables they are read from, what is left out, where rows go, what is published."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightsmith.model.bytes_tokenizer import bytes_tokenizer
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.conversations import ChatColumns
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.data.preferences import PreferenceColumns, pair
from nightsmith.trainer.preference_rows import preference_rows

Triple = tuple[str, str, str]
NAMED = PreferenceColumns(prompt="prompt", chosen="chosen", rejected="rejected")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / ".nightsmith")


def triples(count: int, start: int = 0) -> list[Triple]:
    return [(f"Frage {i}?", f"Ja, {i % 7}.", f"Nein, {i % 5}!") for i in range(start, start + count)]


def records(rows: list[Triple]) -> list[dict[str, str]]:
    return [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows]


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def build(ws: Workspace, *sources: str, rows: Any = "preference", **args: Any) -> Manifest:
    return build_dataset(BuildDataset.model_validate({"sources": sources, "rows": rows, **args}), ws)


def table(ws: Workspace, manifest: Manifest, split: str) -> list[dict[str, str]]:
    return pq.read_table(manifest.path(ws, split)).to_pylist()


def prompts(ws: Workspace, manifest: Manifest, split: str) -> set[str]:
    return {json.loads(row["messages"])[0]["content"] for row in table(ws, manifest, split)}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def as_csv(path: Path, rows: list[Triple]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([("id", "kundenfrage", "chosen", "rejected", "score_chosen")])
        csv.writer(file, delimiter=";").writerows((i, *row, 7) for i, row in enumerate(rows))
    return str(path)


def as_parquet(path: Path, rows: list[Triple]) -> str:
    """Nested columns of whole conversations, without a prompt."""
    both = [[[user(q), says(answer)] for q, *answers in rows for answer in [answers[side]]] for side in (0, 1)]
    pq.write_table(pa.table({"rejected": both[1], "chosen": both[0]}), path)
    return str(path)


def as_jsonl(path: Path, rows: list[Triple]) -> str:
    return jsonl(path, [{"prompt": [user(q)], "chosen": [says(a)], "rejected": [says(b)]} for q, a, b in rows])


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_jsonl])
def test_a_table_of_pairs_becomes_the_rows_that_training_on_preferences_reads(ws, tmp_path, write) -> None:
    manifest = build(ws, write(tmp_path / f"prefs.{write.__name__[3:]}", triples(60)))
    assert manifest.rows == "preference"
    assert manifest.has_pairs("dev")
    assert isinstance(manifest.sources[0].chat_columns, PreferenceColumns)
    rows = [row for split in manifest.splits for row in table(ws, manifest, split.name)]
    found = {tuple(json.loads(row[name])[-1]["content"] for name in ("chosen", "rejected")) for row in rows}
    assert found == {(a, b) for _, a, b in triples(60)}
    assert all(row["messages"] == row["chosen"] for row in rows)
    train = manifest.split("train")
    made = preference_rows(str(manifest.path(ws, "train")), train.data_digest, 200, bytes_tokenizer())
    assert len(made.pairs) == train.rows


def test_prompts_are_in_one_split_and_those_that_evaluate_are_not_trained_on(ws, tmp_path) -> None:
    several = [(f"Frage {i % 50}?", f"Ja, {i}.", "Nein.") for i in range(200)]
    source, test = jsonl(tmp_path / "p.jsonl", records(several)), jsonl(tmp_path / "t.jsonl", records(several[:10]))
    manifest = build(ws, source)
    found = [prompts(ws, manifest, split.name) for split in manifest.splits]
    assert sum(split.rows for split in manifest.splits) == 200
    assert sum(map(len, found)) == len(set.union(*found)) == 50
    held = build(ws, source, sealed_sources=(test,))
    assert prompts(ws, held, "fold0") == {f"Frage {i}?" for i in range(10)}
    assert not prompts(ws, held, "train") & prompts(ws, held, "fold0")
    assert manifest.path(ws, "fold0").is_relative_to(ws.sealed)
    assert manifest.path(ws, "fold0").stat().st_mode & 0o077 == 0


def test_pairs_of_one_prompt_with_other_rejected_answers_are_kept_and_equal_ones_dropped(ws, tmp_path) -> None:
    rows = records([(q, a, f"{b} {n}") for q, a, b in triples(30) for n in (0, 1, 1)])
    manifest = build(ws, jsonl(tmp_path / "p.jsonl", rows))
    assert sum(split.rows for split in manifest.splits) == 60
    assert sum(split.rows for split in build(ws, jsonl(tmp_path / "p.jsonl", rows), dedup=False).splits) == 90


def test_the_longer_answer_counts_for_the_longest_row(ws, tmp_path) -> None:
    rows = [*records(triples(40)), *records([(f"Lang {i}?", "Ja.", "Nein." * 40) for i in range(10)])]
    manifest = build(ws, jsonl(tmp_path / "p.jsonl", rows), max_bytes=60)
    assert sum(split.rows for split in manifest.splits) == 40
    assert {step.kind: step.rows_in - step.rows_out for step in manifest.steps}["length"] == 10


def test_rows_that_evaluate_may_be_conversations_without_a_worse_answer(ws, tmp_path) -> None:
    faq = jsonl(tmp_path / "faq.jsonl", [{"frage": f"Was {i}?", "antwort": f"Das {i}."} for i in range(20)])
    manifest = build(ws, jsonl(tmp_path / "p.jsonl", records(triples(60))), dev_sources=(faq,))
    assert (manifest.has_pairs("dev"), manifest.has_pairs("sealed")) == (False, True)
    assert {row["rejected"] for row in table(ws, manifest, "dev")} == {""}
    assert all(row["rejected"] for row in table(ws, manifest, "train"))


def test_an_earlier_stage_trains_on_chosen_answers_that_no_later_one_is_judged_by(ws, tmp_path) -> None:
    source = jsonl(tmp_path / "p.jsonl", records(triples(60)))
    later = build(ws, source)
    columns = {source: NAMED.model_dump(exclude_none=True)}
    earlier = build(ws, source, rows="chat", columns=columns, without=(later.dataset,), sealed_share=0, dev_share=0.01)
    assert not prompts(ws, earlier, "train") & (prompts(ws, later, "dev") | prompts(ws, later, "fold0"))
    assert {json.loads(row["messages"])[-1]["content"] for row in table(ws, earlier, "train")} <= {
        a for _, a, _ in triples(60)
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"frage": "was?", "antwort": "das"}] * 40, "its columns are 'frage', 'antwort'. Needed are a chosen and a"),
        ([{"prompt": "was?", "chosen": "das"}] * 40, "its columns are 'prompt', 'chosen'. Needed"),
        ([{"chosen": "das", "rejected": "dies"}] * 40, "no row has a prompt and two different answers to it in 'cho"),
        (records([("was?", "das", "das ")] * 40), "no row has a prompt and two different answers"),
        (records([("was?", "das", "")] * 40), "no row has a prompt and two different answers"),
    ],
)
def test_a_table_without_pairs_is_refused_with_the_columns_that_it_has_and_needs(ws, tmp_path, rows, said) -> None:
    with pytest.raises(ToolError) as caught:
        build(ws, jsonl(tmp_path / "p.jsonl", rows))
    assert said in str(caught.value)
    assert "name the columns" in str(caught.value)


def test_columns_that_are_given_decide_and_those_that_are_not_there_are_named(ws, tmp_path) -> None:
    rows = [{"q": q, "a": a, "b": b} for q, a, b in triples(40)]
    source = jsonl(tmp_path / "p.jsonl", rows)
    manifest = build(ws, source, columns={source: {"prompt": "q", "chosen": "b", "rejected": "a"}})
    assert table(ws, manifest, "train")[0]["text"].endswith("!")
    with pytest.raises(ToolError, match=r"has no column 'z'\. Columns: 'q', 'a', 'b'"):
        build(ws, source, columns={source: {"prompt": "q", "chosen": "z", "rejected": "a"}})
    with pytest.raises(ValueError, match="need chosen and rejected"):
        build(ws, source, columns={source: ChatColumns(prompt="q", completion="a")})
    with pytest.raises(ValueError, match="two parts to play"):
        PreferenceColumns(prompt="q", chosen="a", rejected="a")


def test_a_text_file_has_no_pairs(ws, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("text\n" * 100)
    with pytest.raises(ToolError, match=r"it is text without columns\. Needed"):
        build(ws, str(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "\na "}, "one answer"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "no question"),
        ({"prompt": "q", "chosen": None, "rejected": "b"}, "no better answer"),
        ({"prompt": "q", "chosen": [user("x"), says("a")], "rejected": [user("y"), says("b")]}, "two questions"),
        ({"prompt": "q", "chosen": [user("q"), says("a")], "rejected": [user("q"), says("b"), {"role": "?"}]}, "turn"),
        ({"prompt": "q", "chosen": [user("q")], "rejected": "b"}, "no answer"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "": ["beyond the header"]}, "ragged"),
    ],
)
def test_what_is_no_pair_is_left_out(record: dict[str, Any], why: str) -> None:
    assert pair(record, NAMED) is None, why


spaced = st.sampled_from(
    ["a", "b", "a b", " a", "é", "e\u0301", "[", '[{"role": "user"}]', "'; DROP TABLE x; --", "12"]
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(spaced, spaced, spaced), min_size=1, max_size=40))
def test_whatever_texts_are_in_it_no_prompt_is_in_two_splits_and_training_reads_every_row(ws, tmp_path, rows) -> None:
    odd = [(f"{q} {i % 5}", f"{a}+", f"{b}-") for i, (q, a, b) in enumerate(rows)]
    manifest = build(ws, jsonl(tmp_path / "p.jsonl", records([*odd, *triples(40)])))
    found = [prompts(ws, manifest, split.name) for split in manifest.splits]
    plain = [{" ".join(text.split()) for text in each} for each in found]
    assert not plain[0] & plain[1]
    train = manifest.split("train")
    made = preference_rows(str(manifest.path(ws, "train")), train.data_digest, 200, bytes_tokenizer())
    assert len(made.pairs) == train.rows
