"""Finding sources: paths, globs, built-in ids and words, and refusals that name what is near."""

import json
import os
import sysconfig
from pathlib import Path

import pytest

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.resolve import resolve
from nightsmith.tools.data.sources import Source, from_folder


def names(source: Source) -> list[str]:
    return [file.name for file in source.files]


def refusal(ref: str, cwd: Path) -> str:
    with pytest.raises(ToolError) as caught:
        resolve(ref, cwd=cwd)
    return str(caught.value)


@pytest.mark.parametrize(
    "phrase",
    [
        "python-stdlib",
        "python stdlib",
        "the Python standard library's source code",
        "standard library sources",
        "the source files of the Python standard library",
    ],
)
def test_the_standard_library_is_found_by_its_id_and_by_the_words_people_use(phrase: str, tmp_path: Path):
    source = resolve(phrase, cwd=tmp_path)
    assert source.id == "python-stdlib"
    assert 4e6 < source.num_bytes <= 8e6
    assert all(file.path.suffix == ".py" for file in source.files)
    assert not any("test" in Path(file.name).parts or "site-packages" in file.name for file in source.files)
    assert source.files[0].path.is_relative_to(Path(sysconfig.get_paths()["stdlib"]).resolve())


def test_a_gym_task_is_found_by_its_words(tmp_path: Path):
    assert resolve("chain sum problems from reasoning gym", cwd=tmp_path).id == "reasoning-gym:chain_sum"
    assert resolve("reasoning-gym:chain_sum", cwd=tmp_path).kind == "generator"


def test_two_entries_equally_near_are_both_named_and_none_is_taken(tmp_path: Path):
    message = refusal("sums from reasoning gym", tmp_path)
    assert "'reasoning-gym:chain_sum'" in message
    assert "'reasoning-gym:decimal_chain_sum'" in message


@pytest.mark.parametrize("phrase", ["the C++ standard library", "the Go standard library", "Python 2 standard library"])
def test_a_library_that_is_not_the_running_pythons_is_suggested_against_never_replaced(phrase: str, tmp_path: Path):
    assert "nearest is 'python-stdlib'" in refusal(phrase, tmp_path)


def test_a_misspelt_task_gets_near_names(tmp_path: Path):
    assert "Did you mean 'chain_sum'" in refusal("reasoning-gym:chain_sums", tmp_path)


def test_a_missing_folder_gets_near_names(tmp_path: Path):
    (tmp_path / "novels").mkdir()
    message = refusal("./novel", tmp_path)
    assert str(tmp_path / "novel") in message
    assert "Did you mean 'novels'?" in message


def test_a_missing_parent_is_named_by_the_first_part_that_does_not_exist(tmp_path: Path):
    (tmp_path / "corpora").mkdir()
    assert "Did you mean 'corpora'?" in refusal(f"{tmp_path}/corpra/a/b", tmp_path)


def test_an_empty_folder_says_that_it_is_empty(tmp_path: Path):
    (tmp_path / "void").mkdir()
    assert "it is empty" in refusal("void", tmp_path)


def test_a_folder_with_nothing_readable_says_what_was_skipped(tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\0\0")
    (folder / "b.txt").touch()
    assert "1 binary, 1 empty" in refusal("pictures", tmp_path)


@pytest.mark.parametrize(
    "ref", ["", "  ", "https://example.org/x", "s3://bucket/x", "a\0b", "x" * 5000, "hello", "*.zzz"]
)
def test_what_is_no_source_is_refused_with_a_remedy(ref: str, tmp_path: Path):
    assert any(
        word in refusal(ref, tmp_path) for word in ("Name a", "Fetch it", "Built in", "nothing of a similar name")
    )


def test_hidden_files_links_and_special_files_are_counted_and_never_opened(tmp_path: Path):
    outside = tmp_path / "secret.txt"
    outside.write_text("not to be read")
    folder = tmp_path / "in"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("x")
    (folder / ".env").write_text("KEY=1")
    (folder / "out.txt").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (folder / "deep").mkdir()
    (folder / "deep" / "b.txt").write_text("b")
    (folder / "noext").write_text("a")
    source = from_folder("in", folder)
    assert names(source) == ["deep/b.txt", "noext"]
    assert source.skipped == {"hidden": 2, "link": 2, "special": 1}


def test_a_name_that_is_not_utf8_is_shown_escaped(tmp_path: Path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")
    assert names(from_folder("x", tmp_path)) == ["\\xff.txt"]


def test_a_folder_is_a_table_when_half_of_its_bytes_are(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a" * 100}) + "\n")
    (tmp_path / "README.md").write_text("short")
    source = from_folder("x", tmp_path)
    assert (source.kind, names(source), source.skipped) == ("jsonl", ["rows.jsonl"], {"not jsonl": 1})


def test_a_folder_of_code_with_a_small_table_is_text(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "main.py").write_text("print()\n" * 20)
    assert names(from_folder("x", tmp_path)) == ["main.py", "rows.csv"]


def test_a_glob_takes_what_it_matches(tmp_path: Path):
    for name in ("a.txt", "b.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert names(resolve("*.txt", cwd=tmp_path)) == ["a.txt", "b.txt"]


def test_an_existing_folder_wins_over_words(tmp_path: Path):
    (tmp_path / "python stdlib").mkdir()
    (tmp_path / "python stdlib" / "mine.txt").write_text("mine")
    assert names(resolve("python stdlib", cwd=tmp_path)) == ["mine.txt"]
