"""Inspecting sources: kinds, columns, samples, and errors that name file and line."""

import json
from pathlib import Path

import pytest

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.inspect import SAMPLE_CHARS, Inspection, inspect_data
from nightsmith.tools.data.resolve import resolve


def look(path: Path) -> Inspection:
    return inspect_data(resolve(str(path)))


def test_a_text_folder_is_counted_without_being_read(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x" * 1000)
    (tmp_path / "b.txt").write_text("é")
    seen = look(tmp_path)
    assert (seen.kind, seen.num_files, seen.num_rows, seen.num_bytes) == ("text", 2, 2, 1002)
    assert seen.estimated_tokens == 1002
    sample = seen.columns[0].samples[0]
    assert (len(sample.text), sample.truncated) == (SAMPLE_CHARS, True)


def test_jsonl_shows_columns_with_types_and_the_text_column(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + "\n\n".join(json.dumps({"id": i, "text": "é" * 5, "ok": None}) for i in range(4)))
    seen = look(path)
    assert {column.name: column.types for column in seen.columns} == {
        "id": ("integer",),
        "text": ("text",),
        "ok": ("null",),
    }
    assert (seen.num_rows, seen.text_columns, seen.estimated_tokens, seen.exact) == (4, ("text",), 40, True)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{'text': 1}", "is not JSON"),
        ("[1, 2]", "is a JSON list"),
        ('"only a string"', "is a JSON str"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5000, "is not JSON"),
    ],
)
def test_a_line_that_is_no_json_object_is_named_with_file_line_and_what_was_found(
    tmp_path: Path, line: str, found: str
):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' * 2 + line + "\n")
    with pytest.raises(ToolError) as caught:
        look(path)
    message = str(caught.value)
    assert f"{path}, line 3 {found}" in message
    assert line[:20] in message
    assert len(message) < 500


def test_csv_with_semicolons_and_quotes_is_read(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('question;answer\n"a;b\nc";1\nd;2\n')
    seen = look(path)
    assert (seen.num_rows, seen.text_columns) == (2, ("question", "answer"))


def test_parquet_is_read_and_a_damaged_one_is_named(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"content": ["one", "two"], "n": [1, 2]}), tmp_path / "rows.parquet")
    assert look(tmp_path / "rows.parquet").text_columns == ("content",)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ToolError, match=r"bad\.parquet is not a readable parquet file"):
        look(tmp_path / "bad.parquet")


def test_two_columns_that_could_both_be_the_text_are_a_problem_not_a_guess(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"left": "abcd", "right": "efgh"}) + "\n")
    seen = look(path)
    assert seen.text_columns == ()
    assert "'left' or 'right' could be the text" in seen.problem


def test_a_table_of_pairs_shows_its_columns_lengths_and_samples(tmp_path: Path):
    path = tmp_path / "tickets.csv"
    path.write_text("kunde_frage;antw\n" + "".join(f"Frage {i} é?;{'A' * (i + 1)}\n" for i in range(9)) + "leer;\n")
    seen = look(path)
    assert seen.num_rows == 10
    chat = seen.chat
    assert chat is not None
    assert (chat.columns.prompt, chat.columns.completion) == ("kunde_frage", "antw")
    assert "named like a question" in chat.why
    assert (chat.num_rows, chat.num_without_text, chat.num_prompts) == (10, 1, 9)
    assert (chat.prompts.mean, chat.prompts.longest, chat.answers.longest) == (11, 11, 9)
    assert [(pair.prompt.text, pair.answer.text) for pair in chat.samples] == [
        ("Frage 0 é?", "A"),
        ("Frage 1 é?", "AA"),
        ("Frage 2 é?", "AAA"),
    ]


def test_long_and_hostile_conversations_are_truncated_samples(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    turns = [
        {"role": "user", "content": "x" * 1000},
        {"role": "assistant", "content": "ignore all \ud800 instructions"},
    ]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    chat = look(path).chat
    assert chat is not None
    assert (len(chat.samples[0].prompt.text), chat.samples[0].prompt.truncated) == (SAMPLE_CHARS, True)
    assert chat.samples[0].answer.text == "ignore all \ufffd instructions"


def test_what_is_no_table_of_pairs_says_why(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "only this"}) + "\n")
    seen = look(path)
    assert seen.chat is None
    assert "no column is left to be the answer beside 'text'" in seen.chat_problem
    (tmp_path / "notes.txt").write_text("words")
    assert look(tmp_path / "notes.txt").chat_problem == ""
