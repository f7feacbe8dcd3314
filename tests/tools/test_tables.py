"""CSV and JSON files as people write them: never a crash, and errors that name file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.conversations import OVERFLOW
from nightsmith.tools.data.tables import read_csv, read_jsonl


def csv_rows(tmp_path: Path, content: str | bytes) -> list[dict[str, Any]]:
    path = tmp_path / "rows.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [record for _, record in read_csv(path)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_although_values_hold_the_others(tmp_path: Path, delimiter: str):
    others = "".join(mark for mark in ",;|" if mark != delimiter)
    lines = [delimiter.join(row) for row in (["frage", "antwort"], [f"was{others}denn", f"das{others}"], ["wo", "da"])]
    assert csv_rows(tmp_path, "\n".join(lines)) == [
        {"frage": f"was{others}denn", "antwort": f"das{others}"},
        {"frage": "wo", "antwort": "da"},
    ]


def test_a_quoted_header_with_commas_does_not_decide_the_delimiter(tmp_path: Path):
    assert csv_rows(tmp_path, '"Frage, kurz, bitte";"Antwort"\nwas;das\n') == [
        {"Frage, kurz, bitte": "was", "Antwort": "das"}
    ]


def test_a_table_of_one_column_is_not_cut_at_commas(tmp_path: Path):
    assert csv_rows(tmp_path, 'text\nhello, world\n"a, ""b"""\n') == [{"text": "hello, world"}, {"text": 'a, "b"'}]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_marks_are_no_part_of_the_first_name(tmp_path: Path, encoding: str):
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    assert csv_rows(tmp_path, f"{mark}frage\tantwort\nwo\tdä\n".encode(encoding)) == [{"frage": "wo", "antwort": "dä"}]


def test_bytes_of_another_encoding_are_replaced_also_in_the_header(tmp_path: Path):
    assert csv_rows(tmp_path, "Straße;Rückfrage\ncafé;ja\n".encode("latin-1")) == [
        {"Stra\ufffde": "caf\ufffd", "R\ufffdckfrage": "ja"}
    ]


def test_names_that_come_twice_are_numbered_and_empty_ones_called_after_their_place(tmp_path: Path):
    (row,) = csv_rows(tmp_path, "a,,a,a (2),\n1,2,3,4,5\n")
    assert row == {"a": "1", "column 2": "2", "a (2)": "3", "a (2) (2)": "4", "column 5": "5"}


def test_ragged_rows_say_what_is_missing_and_what_is_too_much(tmp_path: Path):
    rows = csv_rows(tmp_path, "q,a\nonly\n1,2,3,4\n\n5,6\n")
    assert rows == [{"q": "only", "a": None}, {"q": "1", "a": "2", OVERFLOW: ["3", "4"]}, {"q": "5", "a": "6"}]


def test_line_ends_within_quotes_and_of_all_kinds_are_kept_apart(tmp_path: Path):
    assert csv_rows(tmp_path, 'q,a\r\n"one\ntwo",3\r\n') == [{"q": "one\ntwo", "a": "3"}]


def test_a_quote_that_never_ends_is_named_by_file_and_line(tmp_path: Path):
    with pytest.raises(ToolError, match=r"rows\.csv, line 3 opens a quote that never ends"):
        csv_rows(tmp_path, 'q,a\n1,2\n3,"four\n5,6\n')


@pytest.mark.parametrize("content", ["", "\n\n", "q,a\n", "\ufeff", "q"])
def test_a_table_without_rows_has_none(tmp_path: Path, content: str):
    assert csv_rows(tmp_path, content) == []


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=300) | st.text(alphabet='ab,;\t|"\n\r\0\ufeff', max_size=60).map(str.encode))
def test_no_bytes_make_the_reader_crash(content: bytes, tmp_path_factory: pytest.TempPathFactory):
    said, rows = "rows.csv, line ", list[dict[str, Any]]()
    try:
        rows = csv_rows(tmp_path_factory.mktemp("any"), content)
    except ToolError as error:
        said = str(error)
    assert "rows.csv, line " in said or "holds binary data" in said
    assert all(name or isinstance(value, list) for record in rows for name, value in record.items())


def json_rows(tmp_path: Path, content: str) -> list[dict[str, Any]]:
    path = tmp_path / "rows.json"
    path.write_text(content)
    return [record for _, record in read_jsonl(path)]


def test_a_json_file_may_be_one_list_or_one_object_a_line(tmp_path: Path):
    rows = [{"q": "é"}, {"q": "b"}]
    assert json_rows(tmp_path, "\ufeff" + json.dumps(rows, indent=1)) == rows
    assert json_rows(tmp_path, "\n".join(map(json.dumps, rows))) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [("[1]", "element 1 is a JSON int"), ('[{"a": 1}, ', "begins like a JSON list"), ("{]", "line 1")],
)
def test_a_json_file_that_is_neither_is_named(tmp_path: Path, content: str, said: str):
    with pytest.raises(ToolError, match=r"rows\.json") as caught:
        json_rows(tmp_path, content)
    assert said in str(caught.value)
