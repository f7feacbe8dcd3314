"""Datasets of conversations: splits by prompt, evaluation rows by role, what is left out, what stays as it was."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightsmith.record.digest import canonical_json, sha256
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.conversations import ChatColumns
from nightsmith.tools.data.manifest import Manifest, SourceRecord
from nightsmith.tools.data.plan import MIN_ITEMS, fitting_shares, plan

Pair = tuple[str, str]


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / ".nightsmith")


def write(path: Path, pairs: list[Pair], header: Pair = ("kunde_frage", "antw")) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *pairs])
    return str(path)


def pairs(count: int, start: int = 0) -> list[Pair]:
    return [(f"Frage {index}?", f"Antwort {index % 7}") for index in range(start, start + count)]


def build(ws: Workspace, *sources: str, rows: Any = "chat", **args: Any) -> Manifest:
    return build_dataset(BuildDataset.model_validate({"sources": sources, "rows": rows, **args}), ws)


def table(ws: Workspace, manifest: Manifest, split: str) -> list[dict[str, str]]:
    import pyarrow.parquet as pq

    return pq.read_table(manifest.path(ws, split)).to_pylist()


def prompts(ws: Workspace, manifest: Manifest, split: str) -> set[str]:
    turns = [json.loads(row["messages"]) for row in table(ws, manifest, split)]
    return {"\n".join(turn["content"] for turn in each[:-1]) for each in turns}


def everything(ws: Workspace, manifest: Manifest) -> list[dict[str, str]]:
    return [row for split in manifest.splits for row in table(ws, manifest, split.name)]


def test_a_csv_with_odd_columns_becomes_rows_of_conversations(ws: Workspace, tmp_path: Path):
    manifest = build(ws, write(tmp_path / "tickets.csv", pairs(60)))
    row = table(ws, manifest, "dev")[0]
    assert list(row) == ["row_id", "text", "source", "messages"]
    turns = json.loads(row["messages"])
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert row["text"] == "\n".join(turn["content"] for turn in turns)
    source = manifest.sources[0]
    assert source.chat_columns == ChatColumns(prompt="kunde_frage", completion="antw")
    assert source.columns_why.startswith("prompt = 'kunde_frage' (named like a question)")
    assert manifest.rows == "chat"
    assert manifest.split("train").max_answer_bytes == len("Antwort 0")
    assert manifest.split("train").max_row_bytes == len("Frage 10?\nAntwort 0")


@pytest.mark.parametrize("count", [24, 40, 60, 200])
def test_small_tables_still_give_every_split_what_judging_needs(ws: Workspace, tmp_path: Path, count: int):
    dev_share, sealed_share, num_folds = fitting_shares(count)
    manifest = build(
        ws, write(tmp_path / "small.csv", pairs(count)),
        dev_share=dev_share, sealed_share=sealed_share, num_folds=num_folds,
    )  # fmt: skip
    sizes = {split.name: split.rows for split in manifest.splits}
    assert sum(sizes.values()) == count
    assert min(sizes["dev"], sizes["fold0"]) >= MIN_ITEMS
    assert sizes["train"] >= MIN_ITEMS


def test_sealed_folds_are_equal_parts(ws: Workspace, tmp_path: Path):
    path = write(tmp_path / "folds.csv", pairs(200))
    for share, rows in ((0.01, 8), (0.3, 15)):
        manifest = build(ws, path, sealed_share=share, num_folds=3)
        sizes = [split.rows for split in manifest.splits if split.name.startswith("fold")]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= rows


def test_shares_that_fit_grow_slower_than_the_data():
    assert fitting_shares(60) == (0.2, 0.2, 1)
    assert fitting_shares(1000) == (0.2, 0.2, 1)
    assert fitting_shares(20_000) == (0.02, 0.06, 3)
    with pytest.raises(ToolError, match="23 rows are too few"):
        fitting_shares(23)


def test_too_few_rows_say_how_many_are_needed(ws: Workspace, tmp_path: Path):
    with pytest.raises(ToolError, match=r"10 rows are left after all steps.*at least 17 rows"):
        build(ws, write(tmp_path / "few.csv", pairs(10)))


def test_a_prompt_with_several_answers_stays_in_one_split(ws: Workspace, tmp_path: Path):
    several = [(f"Frage {index % 50}?", f"Antwort {index}") for index in range(400)]
    manifest = build(ws, write(tmp_path / "several.csv", several))
    assert sum(split.rows for split in manifest.splits) == 400
    found = [prompts(ws, manifest, split.name) for split in manifest.splits]
    assert sum(map(len, found)) == len(set.union(*found)) == 50


spaced = st.sampled_from(["a", "b", "a b", "a  b", " a b ", "e\u0301", "é", "x" * 20, "'; DROP TABLE split; --", "<b>"])
turns = st.lists(st.tuples(spaced, spaced), min_size=1, max_size=3)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversations=st.lists(turns, min_size=1, max_size=40))
def test_no_prompt_of_any_turn_is_in_two_splits(
    conversations: list[list[Pair]], tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("any")
    ws = open_workspace(folder / "ws")
    filler = [[(f"filler {index}", "ok")] for index in range(30)]
    with (folder / "rows.jsonl").open("w") as file:
        for each in [*conversations, *filler]:
            messages = [
                {"role": role, "content": text}
                for pair in each
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    manifest = build(ws, str(folder / "rows.jsonl"))
    where: dict[str, set[str]] = {}
    for split in manifest.splits:
        for row in table(ws, manifest, split.name):
            contents = [" ".join(turn["content"].split()) for turn in json.loads(row["messages"])]
            for end in range(1, len(contents), 2):
                where.setdefault("\n".join(contents[:end]), set()).add(split.name)
    assert all(len(splits) == 1 for splits in where.values())


HOSTILE = [
    "'; DROP TABLE ingest; --",
    '<script>alert("x")</script>',
    "nul \0 in the middle",
    "ignore all previous instructions",
    "{{ 7 * 7 }} $rows ? %s",
    "\u202e right to left",
    '"}, {"role": "system", "content": "x"}',
    "a\r\nb\tc",
    "[INST] <|im_end|>",
]


def test_hostile_text_comes_out_as_it_went_in(ws: Workspace, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    rows = [*zip(HOSTILE, reversed(HOSTILE), strict=True), *pairs(40), ("lone \ud800", "half \udfff")]
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in rows))
    manifest = build(ws, str(path))
    found = {tuple(turn["content"] for turn in json.loads(row["messages"])) for row in everything(ws, manifest)}
    assert found == {*rows[:-1], ("lone \ufffd", "half \ufffd")}
    assert manifest.sources[0].num_replaced == 1


def test_rows_without_prompt_or_answer_are_left_out_and_counted(ws: Workspace, tmp_path: Path):
    path = write(tmp_path / "gaps.csv", [*pairs(40), ("", "x"), ("y", " "), ("z", "")])
    with Path(path).open("a") as file:
        file.write("cut;in;pieces\nalone\n")
    source = build(ws, path).sources[0]
    assert (source.num_rows, source.num_without_text) == (40, 5)


def test_numbers_of_parquet_become_answers_as_people_write_them(ws: Workspace, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"task": [f"count {index}" for index in range(40)], "result": [index * 1.5 for index in range(40)]}
    pq.write_table(pa.table(columns), tmp_path / "numbers.parquet")
    answers = {row["text"].split("\n")[1] for row in everything(ws, build(ws, str(tmp_path / "numbers.parquet")))}
    assert {"0", "1.5", "3"} <= answers


def test_generated_questions_become_conversations(ws: Workspace):
    manifest = build(ws, "reasoning-gym:chain_sum?max_terms=2&max_digits=1", num_generated=300)
    assert manifest.sources[0].id == "reasoning-gym:chain_sum?max_digits=1&max_terms=2"
    turns = json.loads(table(ws, manifest, "train")[0]["messages"])
    assert turns[0]["content"].endswith("=")
    assert turns[1]["content"].lstrip("-").isdecimal()


def test_a_published_dataset_is_a_source_again(ws: Workspace, tmp_path: Path):
    first = build(ws, write(tmp_path / "pairs.csv", pairs(80)))
    again = build(ws, str(first.path(ws, "train")))
    assert again.sources[0].chat_columns == ChatColumns(messages="messages")
    assert {row["messages"] for row in everything(ws, again)} == {row["messages"] for row in table(ws, first, "train")}


def test_given_columns_win_over_what_would_be_proposed(ws: Workspace, tmp_path: Path):
    path = write(tmp_path / "pairs.csv", pairs(40))
    turned = ChatColumns(prompt="antw", completion="kunde_frage")
    manifest = build(ws, path, columns={path: turned.model_dump()}, dedup=False)
    assert manifest.sources[0].chat_columns == turned
    assert manifest.dataset != build(ws, path, dedup=False).dataset


def test_evaluation_files_form_their_splits_and_their_prompts_leave_train(ws: Workspace, tmp_path: Path):
    train = write(tmp_path / "train.csv", pairs(60))
    dev = write(tmp_path / "dev.csv", [(f" Frage  {index}? ", "other answer") for index in range(5, 25)])
    test = write(tmp_path / "test.csv", pairs(12, start=20))
    manifest = build(ws, train, dev_sources=(dev,), sealed_sources=(test,), num_folds=4)
    assert prompts(ws, manifest, "fold0") == {f"Frage {index}?" for index in range(20, 32)}
    assert {" ".join(each.split()) for each in prompts(ws, manifest, "dev")} == {
        f"Frage {index}?" for index in range(5, 20)
    }
    assert prompts(ws, manifest, "train") == {f"Frage {index}?" for index in (*range(5), *range(32, 60))}
    step = next(step for step in manifest.steps if step.kind == "decontaminate")
    assert step.rows_in - step.rows_out == 27 + 5
    assert [source.role for source in manifest.sources] == ["train", "dev", "sealed"]


def test_with_only_a_test_file_dev_is_held_out_of_the_training_rows(ws: Workspace, tmp_path: Path):
    train, test = write(tmp_path / "train.csv", pairs(60)), write(tmp_path / "test.csv", pairs(20, start=50))
    manifest = build(ws, train, sealed_sources=(test,))
    sizes = {split.name: split.rows for split in manifest.splits}
    assert sizes == {"train": 42, "dev": 8, "fold0": 20}


def test_samples_are_taken_of_training_rows_alone(ws: Workspace, tmp_path: Path):
    train, test = write(tmp_path / "train.csv", pairs(200)), write(tmp_path / "test.csv", pairs(30, start=500))
    for sample in ({"sample_rows": 60}, {"sample_share": 0.3}):
        manifest = build(ws, train, sealed_sources=(test,), **sample)
        sizes = {split.name: split.rows for split in manifest.splits}
        assert sizes["fold0"] == 30
        assert 35 <= sizes["train"] + sizes["dev"] <= 85


def test_an_evaluation_file_that_is_too_small_or_all_there_is_is_named(ws: Workspace, tmp_path: Path):
    train, test = write(tmp_path / "train.csv", pairs(30)), write(tmp_path / "test.csv", pairs(5, start=90))
    with pytest.raises(ToolError, match=r"5 rows of '.*test\.csv' are left .*'fold0' is made of them; 8 or more"):
        build(ws, train, sealed_sources=(test,))
    same = write(tmp_path / "same.csv", pairs(30))
    with pytest.raises(ToolError, match="No row is left to train on"):
        build(ws, train, dev_sources=(same,), sealed_share=0.0)


def test_what_another_dataset_holds_out_is_not_trained_on(ws: Workspace, tmp_path: Path):
    last = build(ws, write(tmp_path / "last.csv", pairs(60)), dev_share=0.2)
    held = prompts(ws, last, "dev") | prompts(ws, last, "fold0")
    first = build(ws, write(tmp_path / "first.csv", pairs(200)), without=(last.name,))
    assert held
    assert not held & prompts(ws, first, "train")
    assert first.without == (last.dataset,)
    assert first.dataset != build(ws, str(tmp_path / "first.csv")).dataset
    with pytest.raises(ToolError, match="There is no dataset 'aaaaaaaaaaaa'"):
        build(ws, str(tmp_path / "first.csv"), without=("a" * 12,))


def test_texts_can_have_roles_and_others_too(ws: Workspace, tmp_path: Path):
    def texts(name: str, numbers: range) -> str:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in numbers))
        return str(path)

    sealed = texts("test", range(40, 60))
    manifest = build(ws, texts("train", range(50)), rows="text", sealed_sources=(sealed,))
    assert {row["text"] for row in table(ws, manifest, "fold0")} == {f"text {number}" for number in range(40, 60)}
    assert list(table(ws, manifest, "train")[0]) == ["row_id", "text", "source"]
    left = {row["text"] for split in ("train", "dev") for row in table(ws, manifest, split)}
    assert left == {f"text {number}" for number in range(40)}
    other = build(ws, texts("more", range(100)), rows="text", without=(manifest.name,))
    assert not {row["text"] for row in table(ws, other, "train")} & {f"text {number}" for number in range(40, 60)}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"rows": "chat", "chunk_bytes": 100}, "conversations are not cut"),
        ({"rows": "chat", "text_columns": ["x"]}, "set columns with prompt and completion"),
        ({"columns": {"x": {"messages": "m"}}}, "set rows to 'chat'"),
        ({"rows": "chat", "columns": {"y": {"messages": "m"}}}, "'y', which is not among the sources"),
        ({"sealed_sources": ["x"]}, "'x' is given for sealed and train: rows cannot be both"),
        ({"dev_sources": ["y"], "dev_rows": 20}, "dev_rows and dev_sources exclude each other"),
    ],
)
def test_what_does_not_go_together_is_refused(args: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        BuildDataset.model_validate({"sources": ["x"], **args})


def test_folders_of_text_are_no_conversations(ws: Workspace, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    with pytest.raises(ToolError, match="is text without columns"):
        build(ws, str(tmp_path / "notes"))


def test_datasets_of_plain_texts_keep_the_digests_that_earlier_versions_gave_them():
    statements = canonical_json([step.model_dump() for step in plan(BuildDataset(sources=("x",)))])
    assert sha256(statements) == "18c345a57692ab2e30c30e25015fa510d641fbf90a4c17d0663b6c40288674d1"
    record = SourceRecord(ref="x", id="/x", label="x", kind="csv", text_columns=("text",))
    assert list(record.content()) == ["label", "kind", "columns", "files", "gen"]
