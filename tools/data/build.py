"""Build a dataset: sources in, train, dev and sealed folds out, with a manifest, published by rename or not at all."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nightsmith.record.digest import file_digest
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data import engine, steps
from nightsmith.tools.data.columns import ColumnProposal, PairProposal, propose, propose_pairs, require_columns
from nightsmith.tools.data.held_out import HELD_OUT, write_held_out
from nightsmith.tools.data.ingest import BuildProgress, OnProgress, Reading, fingerprint, ingest
from nightsmith.tools.data.manifest import (
    Manifest,
    SourceRecord,
    SplitRecord,
    StepRecord,
    dataset_digest,
    read_manifest,
)
from nightsmith.tools.data.plan import MIN_ITEMS, BuildDataset, plan
from nightsmith.tools.data.publish import intact, publish, staging
from nightsmith.tools.data.readers import Record, choose_text_columns, sample_records
from nightsmith.tools.data.resolve import resolve
from nightsmith.tools.data.sources import Source

if TYPE_CHECKING:
    import duckdb

LOCK_WAIT_S = 600.0
"""How long a build waits for another process that builds the same dataset."""


def build_dataset(
    args: BuildDataset, ws: Workspace, *, cwd: Path | None = None, on_progress: OnProgress | None = None
) -> Manifest:
    """Build and publish a dataset, or return the one that the same sources and steps have given already.

    Files lie in `data/<name>` and `sealed/<name>` of the workspace; a build that fails or is killed leaves neither.

    Args:
        args: what to build.
        ws: where to publish it.
        cwd: folder that relative sources start from; the current one by default.
        on_progress: told at least once per source file, step and split.

    Raises:
        ToolError: a source is missing, empty or malformed; too few rows; disk full. Says what mends it.
        Busy: another process has been building the same dataset for ten minutes.
    """
    say = on_progress or _silent
    sources = _labelled([resolve(ref, cwd=cwd) for _, ref in args.by_role()])
    readings = tuple(_reading(source, args, role) for source, (role, _) in zip(sources, args.by_role(), strict=True))
    records = fingerprint(readings, say)
    planned = plan(args)
    others = tuple(read_manifest(ws, digest) for digest in args.without)
    dataset = dataset_digest(records, args.chunk_bytes, planned, tuple(sorted(other.dataset for other in others)))
    with ws.lock(f"data-{dataset[:12]}", wait_s=LOCK_WAIT_S):
        if found := intact(ws, dataset):
            say(BuildProgress("reused", 1, 1))
            return found
        with staging(ws, dataset[:12], num_bytes=sum(source.num_bytes for source in sources)) as folder:
            write_held_out(ws, others, folder, chat=args.has_turns)
            manifest = _build(args, readings, records, planned, dataset, folder, say)
            manifest = manifest.model_copy(update={"without": tuple(other.dataset for other in others)})
            publish(ws, manifest, folder)
    return manifest


def _silent(progress: BuildProgress) -> None:
    del progress


def _labelled(sources: list[Source]) -> list[Source]:
    """Make labels unique, so that rows of two folders of one name keep different names."""
    seen: Counter[str] = Counter()
    unique: list[Source] = []
    for source in sources:
        seen[source.label] += 1
        number = seen[source.label]
        unique.append(source if number == 1 else replace(source, label=f"{source.label}~{number}"))
    return unique


def _reading(source: Source, args: BuildDataset, role: Literal["train", "dev", "sealed"]) -> Reading:
    reading = Reading(source, (), args.chunk_bytes, args.num_generated, args.seed, role=role)
    if args.has_turns:
        return _chat_reading(reading, args)
    if source.kind == "text":
        return reading
    sample = sample_records(source, seed=args.seed)
    return replace(reading, text_columns=choose_text_columns(source, args.text_columns, sample))


def _chat_reading(reading: Reading, args: BuildDataset) -> Reading:
    source = reading.source
    sample = [] if source.kind == "text" else sample_records(source, seed=args.seed)
    if given := args.columns.get(source.ref):
        require_columns(source, given, sample)
        return replace(reading, chat_columns=given)
    found = _proposed(source, sample, reading.role, args)
    return replace(reading, chat_columns=found.columns, columns_why=found.why)


def _proposed(source: Source, sample: list[Record], role: str, args: BuildDataset) -> ColumnProposal | PairProposal:
    """Columns of conversations or pairs. Where pairs are trained on, rows that only evaluate may still be the former.

    Raises ToolError where they cannot be told.
    """
    if args.rows != "preference":
        return propose(source, sample)
    try:
        return propose_pairs(source, sample)
    except ToolError:
        if role == "train":
            raise
        return propose(source, sample)


def _build(
    args: BuildDataset, readings: tuple[Reading, ...], records: tuple[SourceRecord, ...],
    planned: tuple[StepRecord, ...], dataset: str, folder: Path, say: OnProgress,
) -> Manifest:  # fmt: skip
    """Do all steps inside the staging folder and describe what they gave."""
    rows = folder / "rows.parquet"
    read = ingest(readings, records, rows, say)
    with engine.locked_connection(folder) as connection:
        done = tuple(_run(connection, planned, rows, read, say))
        _require_enough(connection, args, planned[-2].kind)
        splits = tuple(_publish_splits(connection, args, done[-1], planned[-2].kind, rows, dataset, say))
    rows.unlink()
    return Manifest(
        dataset=dataset, rows=args.rows, sources=read, chunk_bytes=args.chunk_bytes, steps=done, splits=splits,
        engine=engine.version(),
    )  # fmt: skip


def _run(
    connection: "duckdb.DuckDBPyConnection", planned: tuple[StepRecord, ...], rows: Path,
    read: tuple[SourceRecord, ...], say: OnProgress,
) -> Iterator[StepRecord]:  # fmt: skip
    """Execute each step but the last, which is executed for each split; yield them with their row counts."""
    rows_in = sum(source.num_rows + source.num_without_text for source in read)
    for number, step in enumerate(planned[:-1], start=1):
        say(BuildProgress("step", number, len(planned)))
        files = {"$rows": rows, "$held_out": rows.with_name(HELD_OUT)}
        bound = {name[1:]: str(path) for name, path in files.items() if f"({name})" in step.sql}
        connection.execute(step.sql, {**step.values, **bound})
        rows_out = _count(connection, f"SELECT count(*) FROM {steps.ident(step.kind)}")
        yield step.model_copy(update={"rows_in": rows_in, "rows_out": rows_out})
        rows_in = rows_out
    yield planned[-1].model_copy(update={"rows_in": rows_in, "rows_out": rows_in})


def _count(connection: "duckdb.DuckDBPyConnection", sql: str, values: dict[str, str] | None = None) -> int:
    found = connection.execute(sql, values or {}).fetchone()
    return int(found[0] or 0) if found else 0


def _require_enough(connection: "duckdb.DuckDBPyConnection", args: BuildDataset, table: str) -> None:
    """Refuse splits that are too small to judge anything by."""
    found = connection.execute(f"SELECT split, count(*) FROM {steps.ident(table)} GROUP BY split").fetchall()
    counts = dict[str, int](found)
    for name in args.splits():
        if counts.get(name, 0) < (1 if name == "train" else MIN_ITEMS):
            raise ToolError((_too_few_of_role if args.is_keyed else _too_few)(args, name, counts))


def _too_few(args: BuildDataset, name: str, counts: dict[str, int]) -> str:
    shares = [args.dev_share if args.dev_rows is None else 1.0, (args.sealed_share or 1.0) / args.num_folds]
    needed = round(1.5 * MIN_ITEMS / min(shares))
    return (
        f"{sum(counts.values())} rows are left after all steps, {counts.get(name, 0)} of them in {name!r}; dev and "
        f"each sealed fold need {MIN_ITEMS} or more, train 1. With these shares that takes about {needed} rows: add "
        "data, raise dev_share and sealed_share, or set chunk_bytes (such as 4096) to cut long text files into rows."
    )


def _too_few_of_role(args: BuildDataset, name: str, counts: dict[str, int]) -> str:
    have, total = counts.get(name, 0), sum(counts.values())
    own = args.dev_sources if name == "dev" else args.sealed_sources if name == "fold0" else ()
    if own:
        return (
            f"{have} rows of {', '.join(map(repr, own))} are left after all steps, and {name!r} is made of them; "
            f"{MIN_ITEMS} or more with different prompts are needed. Add rows, or leave these sources out so that rows "
            "of the training data are held out instead."
        )
    if name == "train" and args.has_roles:
        return (
            f"No row is left to train on: all are held out, or occur in evaluation data too ({total} rows there). Name "
            "training data that is not the evaluation data."
        )
    held = (name == "dev" or not args.dev_sources) + (0 if args.sealed_sources else len(args.splits()) - 2)
    return (
        f"{total} rows are left after all steps, {have} of them in {name!r}; dev and each sealed fold need {MIN_ITEMS} "
        "or more, train 1, and rows with one prompt stay together. That takes at least "
        f"{MIN_ITEMS * held + 1} rows with different prompts: add data, or ask for fewer folds."
    )


def _publish_splits(
    connection: "duckdb.DuckDBPyConnection", args: BuildDataset, last: StepRecord, table: str, rows: Path, dataset: str,
    say: OnProgress,
) -> Iterator[SplitRecord]:  # fmt: skip
    names = args.splits()
    for number, name in enumerate(names, start=1):
        path = rows.parent / f"{name}.parquet"
        connection.execute(last.sql, {"rows": str(rows), "split": name, "path": str(path)})
        say(BuildProgress("publish", number, len(names)))
        total = f"SELECT {{}} FROM ingest JOIN {steps.ident(table)} USING (row_id) WHERE split = $split"
        values = {"split": name}
        longest = ("max(num_bytes)", "max(answer_bytes)") if args.has_turns else ()
        most = [_count(connection, total.format(what), values) for what in longest] or [None, None]
        yield SplitRecord(
            name=name,
            path=f"{'sealed' if name.startswith('fold') else 'data'}/{dataset[:12]}/{path.name}",
            data_digest=file_digest(path),
            rows=_count(connection, total.format("count(*)"), values),
            num_bytes=_count(connection, total.format("sum(num_bytes)"), values),
            max_row_bytes=most[0],
            max_answer_bytes=most[1],
        )
