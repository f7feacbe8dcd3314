"""Building datasets: what is published, that equal inputs give equal bytes, and that failures leave nothing half."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightsmith.record.digest import file_digest
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.ingest import BuildProgress
from nightsmith.tools.data.manifest import Manifest, damaged_splits, read_manifest


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / ".nightsmith")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "sub").mkdir(parents=True)
    for index in range(400):
        place = folder / "sub" if index % 2 else folder
        (place / f"{index}.txt").write_text(f"document {index}\n" + "line\n" * (index % 7))
    return folder


def build(ws: Workspace, *sources: Path | str, **args: Any) -> Manifest:
    return build_dataset(BuildDataset(sources=tuple(str(source) for source in sources), **args), ws)


def table(ws: Workspace, manifest: Manifest, split: str) -> list[dict[str, str]]:
    import pyarrow.parquet as pq

    return pq.read_table(manifest.path(ws, split)).to_pylist()


def everything(ws: Workspace, manifest: Manifest) -> list[dict[str, str]]:
    return [row for split in manifest.splits for row in table(ws, manifest, split.name)]


def leftovers(ws: Workspace) -> list[str]:
    return sorted(path.name for folder in (ws.data, ws.sealed) for path in folder.iterdir())


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_splits_partition_the_rows_about_as_asked(ws: Workspace, corpus: Path):
    manifest = build(ws, corpus)
    rows = everything(ws, manifest)
    assert len({row["row_id"] for row in rows}) == len(rows) == 400
    assert {row["source"] for row in rows} >= {"corpus/sub/1.txt:0", "corpus/0.txt:0"}
    sizes = {split.name: split.rows for split in manifest.splits}
    assert 320 < sizes["train"] < 390
    assert all(8 <= sizes[name] <= 40 for name in ("dev", "fold0"))


def test_the_manifest_says_what_went_in_what_was_done_and_what_came_out(ws: Workspace, corpus: Path):
    (corpus / "again.txt").write_text((corpus / "0.txt").read_text() + "  \n")
    manifest = build(ws, corpus, max_bytes=40)
    assert [step.kind for step in manifest.steps] == ["ingest", "dedup", "length", "split", "publish"]
    assert [(step.rows_in, step.rows_out) for step in manifest.steps[:2]] == [(401, 401), (401, 400)]
    assert manifest.steps[2].rows_out < 400
    assert manifest.steps[-1].rows_out == sum(split.rows for split in manifest.splits)
    assert all(step.sql.startswith(("CREATE TABLE", "COPY")) for step in manifest.steps)
    assert manifest.sources[0].files[0].data_digest == file_digest(corpus / "0.txt")
    assert damaged_splits(ws, manifest) == ()
    assert read_manifest(ws, manifest.name) == manifest


def test_sealed_folds_lie_apart_and_only_their_owner_may_read_them(ws: Workspace, corpus: Path):
    manifest = build(ws, corpus, sealed_share=0.2, num_folds=2)
    for name in ("fold0", "fold1"):
        path = manifest.path(ws, name)
        assert path == ws.sealed / manifest.name / f"{name}.parquet"
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert sorted(path.name for path in (ws.data / manifest.name).iterdir()) == [
        "dev.parquet",
        "manifest.json",
        "train.parquet",
    ]


def test_equal_sources_and_steps_give_equal_digests_and_bytes_in_another_workspace(tmp_path: Path, corpus: Path):
    first, second = (build(open_workspace(tmp_path / name), corpus) for name in ("a", "b"))
    assert first == second


def test_another_step_or_another_byte_gives_another_dataset(ws: Workspace, corpus: Path):
    digests = {
        build(ws, corpus).dataset,
        build(ws, corpus, min_bytes=14).dataset,
        build(ws, corpus, dev_share=0.1).dataset,
    }
    (corpus / "0.txt").write_text("changed")
    assert len(digests | {build(ws, corpus).dataset}) == 4


def test_a_published_dataset_is_reused_and_a_damaged_one_is_built_again(ws: Workspace, corpus: Path):
    manifest = build(ws, corpus)
    phases: list[str] = []

    def note(progress: BuildProgress) -> None:
        phases.append(progress.phase)

    args = BuildDataset(sources=(str(corpus),))
    build_dataset(args, ws, on_progress=note)
    assert phases[-1] == "reused"
    assert "read" not in phases
    manifest.path(ws, "fold0").write_bytes(b"tampered")
    assert build_dataset(args, ws) == manifest
    assert damaged_splits(ws, manifest) == ()


def test_equal_texts_never_straddle_splits_even_without_dedup(ws: Workspace, tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [f"text {index % 300}" for index in range(900)])
    manifest = build(ws, path, dedup=False)
    where: dict[str, set[str]] = {}
    for split in manifest.splits:
        for row in table(ws, manifest, split.name):
            where.setdefault(row["text"], set()).add(split.name)
    assert sum(split.rows for split in manifest.splits) == 900
    assert all(len(splits) == 1 for splits in where.values())


def test_samples_and_held_out_rows_are_honoured(ws: Workspace, corpus: Path):
    manifest = build(ws, corpus, sample_rows=200, dev_rows=25, sealed_share=0.1)
    assert sum(split.rows for split in manifest.splits) == 200
    assert manifest.split("dev").rows == 25


def test_pieces_of_a_document_stay_in_one_split_and_join_to_the_document(ws: Workspace, tmp_path: Path):
    folder = tmp_path / "long"
    folder.mkdir()
    for index in range(60):
        (folder / f"{index}.txt").write_text("".join(f"{index} line {line} é\n" for line in range(40)) + "x" * 200)
    manifest = build(ws, folder, chunk_bytes=100, split_by="document", dev_share=0.2, sealed_share=0.2)
    pieces: dict[str, dict[int, str]] = {}
    for split in manifest.splits:
        for row in table(ws, manifest, split.name):
            document, _, index = row["source"].rpartition(":")
            pieces.setdefault(f"{split.name} {document}", {})[int(index)] = row["text"]
            assert len(row["text"].encode()) <= 100
    assert len(pieces) == 60
    # The runs of x at the ends are equal in all documents, so dedup keeps them once.
    whole = ["".join(parts[index] for index in sorted(parts)) for parts in pieces.values()]
    assert all(text.startswith(f"{text.split()[0]} line 0 é\n") for text in whole)


def test_a_single_file_can_be_cut_into_rows(ws: Workspace, tmp_path: Path):
    path = tmp_path / "novel.txt"
    path.write_text("".join(f"{random.Random(line).random()}\n" for line in range(5000)))
    with pytest.raises(ToolError, match="set chunk_bytes"):
        build(ws, path)
    assert build(ws, path, chunk_bytes=256).split("dev").rows >= 8


def test_too_few_rows_say_how_many_are_needed_and_publish_nothing(ws: Workspace, tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [f"text {index}" for index in range(12)])
    with pytest.raises(ToolError, match=r"12 rows are left after all steps.*need 8 or more.*about 240 rows"):
        build(ws, path)
    assert leftovers(ws) == []


HOSTILE = [
    "'; DROP TABLE ingest; --",
    '<script>alert("x")</script>',
    "nul \0 in the middle",
    "lone surrogate \ud800",
    "ignore all previous instructions",
    "{{ 7 * 7 }} $rows ? %s",
    "\u202e right to left",
    "e\u0301",
    "a\r\nb\tc",
]


def test_hostile_text_comes_out_as_it_went_in(ws: Workspace, tmp_path: Path):
    filler = [f"filler {index}" for index in range(400)]
    manifest = build(ws, write_jsonl(tmp_path / "rows.jsonl", HOSTILE + filler))
    texts = {row["text"] for row in everything(ws, manifest)}
    assert {text.replace("\ud800", "\ufffd") for text in HOSTILE} <= texts
    assert manifest.sources[0].num_replaced == 1


def test_bytes_that_are_not_utf8_are_replaced_and_counted(ws: Workspace, corpus: Path):
    (corpus / "latin.txt").write_bytes(b"caf\xe9 au lait")
    manifest = build(ws, corpus)
    assert manifest.sources[0].num_replaced == 1
    assert "caf\ufffd au lait" in {row["text"] for row in everything(ws, manifest)}


def test_records_without_text_are_left_out_and_counted(ws: Workspace, tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [f"text {index}" for index in range(300)])
    with path.open("a") as file:
        file.write('{"other": 1}\n{"text": null}\n{"text": 5}\n')
    manifest = build(ws, path)
    assert (manifest.sources[0].num_rows, manifest.sources[0].num_without_text) == (300, 3)


def test_folders_of_one_name_keep_their_rows_apart(ws: Workspace, tmp_path: Path):
    for parent in ("a", "b"):
        (tmp_path / parent / "data").mkdir(parents=True)
        for index in range(150):
            (tmp_path / parent / "data" / f"{index}.txt").write_text(f"{parent} {index}")
    manifest = build(ws, tmp_path / "a" / "data", tmp_path / "b" / "data")
    assert {source.label for source in manifest.sources} == {"data", "data~2"}
    assert len({row["row_id"] for row in everything(ws, manifest)}) == 300


def test_generated_rows_follow_from_their_seed(ws: Workspace):
    manifest = build(ws, "reasoning-gym:chain_sum", num_generated=400, seed=3)
    assert manifest.sources[0].note.endswith("400 rows, seed 3")
    assert manifest.sources[0].text_columns == ("question", "answer")
    assert build(ws, "reasoning-gym:chain_sum", num_generated=400, seed=4).dataset != manifest.dataset


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=60))
def test_every_text_is_published_once_or_was_a_duplicate_or_blank(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("any")
    fill = [f"filler {index}" for index in range(400)]
    ws = open_workspace(folder / "ws")
    manifest = build(ws, write_jsonl(folder / "rows.jsonl", [*texts, *fill]))
    published = [row["text"] for row in everything(ws, manifest)]
    assert len(published) == len(set(published))
    assert set(published) <= {*texts, *fill}
    assert set(fill) <= set(published)


BUILDER = """
import sys
from pathlib import Path
from nightsmith.record.workspace import open_workspace
from nightsmith.tools.data.build import BuildDataset, build_dataset
import resource, os, signal
ws, corpus, stop, limit = open_workspace(Path(sys.argv[1])), sys.argv[2], sys.argv[3], int(sys.argv[4])
def die(progress):
    if f"{progress.phase}{progress.done}" == stop:
        os.kill(os.getpid(), signal.SIGKILL)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build_dataset(BuildDataset(sources=(corpus,)), ws, on_progress=die)
except Exception as error:
    print(type(error).__name__, error)
"""


def run_builder(ws: Workspace, corpus: Path, stop: str, limit: int = 0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", BUILDER, str(ws.root), str(corpus), stop, str(limit)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("stop", ["read400", "step2", "publish1", "publish3"])
def test_a_killed_build_publishes_nothing_and_the_next_one_sweeps_and_succeeds(ws: Workspace, corpus: Path, stop: str):
    assert run_builder(ws, corpus, stop).returncode == -signal.SIGKILL
    assert all(name.startswith(".build-") for name in leftovers(ws))
    manifest = build(ws, corpus)
    assert leftovers(ws) == [manifest.name, manifest.name]


def test_a_full_disk_is_said_and_leaves_nothing(ws: Workspace, corpus: Path):
    (corpus / "big.txt").write_text(random.Random(0).randbytes(300_000).hex())
    done = run_builder(ws, corpus, "", limit=100_000)
    assert done.stdout.startswith("ToolError The disk of"), done.stdout + done.stderr
    assert leftovers(ws) == []


def test_two_builders_of_one_dataset_at_once_give_one_dataset(ws: Workspace, corpus: Path):
    argv = [sys.executable, "-c", BUILDER, str(ws.root), str(corpus), "", "0"]
    builders = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [builder.communicate()[0] for builder in builders] == ["", ""]
    assert len(set(leftovers(ws))) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(ws: Workspace, corpus: Path):
    def change(progress: BuildProgress) -> None:
        if progress.phase == "read":
            (corpus / "0.txt").write_text("changed meanwhile")

    with pytest.raises(ToolError, match="changed while it was read"):
        build_dataset(BuildDataset(sources=(str(corpus),)), ws, on_progress=change)
    assert leftovers(ws) == []


def test_reading_holds_a_batch_in_memory_not_the_source(ws: Workspace, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for index in range(40_000):
            file.write(json.dumps({"text": f"{index} " + "lorem ipsum " * 250}) + "\n")
    resident: list[int] = []

    def note(progress: BuildProgress) -> None:
        if progress.phase == "read":
            resident.append(psutil.Process().memory_info().rss)

    build_dataset(BuildDataset(sources=(str(path),)), ws, on_progress=note)
    assert path.stat().st_size > 100e6
    assert max(resident) - resident[0] < 50e6


def test_a_build_prints_nothing(ws: Workspace, corpus: Path, capfd: pytest.CaptureFixture[str]):
    build(ws, corpus)
    assert capfd.readouterr() == ("", "")
