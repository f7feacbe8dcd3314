"""Build a dataset: sources in, train, dev and sealed folds out, with a manifest, published by rename or not at all."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from nightsmith.record.digest import file_digest
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolArgs, ToolError
from nightsmith.tools.data import engine, steps
from nightsmith.tools.data.ingest import BuildProgress, OnProgress, Reading, fingerprint, ingest
from nightsmith.tools.data.manifest import Manifest, SourceRecord, SplitRecord, StepRecord, dataset_digest
from nightsmith.tools.data.publish import intact, publish, staging
from nightsmith.tools.data.readers import choose_text_columns, sample_records
from nightsmith.tools.data.resolve import resolve
from nightsmith.tools.data.sources import Source

if TYPE_CHECKING:
    import duckdb

MIN_ITEMS = 8
"""Fewest rows of dev and of each sealed fold: with fewer, nothing can be judged."""
LOCK_WAIT_S = 600.0
"""How long a build waits for another process that builds the same dataset."""


class BuildDataset(ToolArgs):
    """Read sources, drop duplicates and what is too short or long, and publish train, dev and sealed splits."""

    sources: tuple[str, ...] = Field(min_length=1, max_length=32)
    """Folders, files, globs, built-in sources, or the words a goal uses for them."""
    text_columns: tuple[str, ...] = ()
    """Columns of tables that make the text, joined by newlines; empty: chosen by their names, and recorded."""
    dedup: bool = True
    """Drop rows whose text another row has already."""
    min_bytes: int = Field(default=1, ge=0)
    """Shortest text in bytes; text of white space only is always dropped."""
    max_bytes: int = Field(default=2**26, gt=0)
    """Longest text in bytes."""
    chunk_bytes: int | None = Field(default=None, ge=64, le=2**26)
    """Cut text files at line ends into rows of at most so many bytes; null: a document is one row."""
    sample_rows: int | None = Field(default=None, gt=0)
    """Keep so many rows of what is left; null: all, or `sample_share`."""
    sample_share: float | None = Field(default=None, gt=0, le=1)
    """Keep about this share of the rows; null: all, or `sample_rows`."""
    dev_share: float = Field(default=0.05, gt=0, le=0.5)
    """Share of the rows in dev."""
    dev_rows: int | None = Field(default=None, ge=MIN_ITEMS)
    """Rows in dev; null: a share."""
    sealed_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the rows in all sealed folds together; 0: none, so that nothing can be proven on sealed data."""
    split_by: Literal["text", "document"] = "text"
    """What is placed as a whole: equal texts, or all rows of one document (with chunk_bytes; needs dedup)."""
    num_folds: int = Field(default=1, ge=1, le=16)
    """Sealed folds; each allows looks of its own."""
    num_generated: int = Field(default=5000, gt=0, le=1_000_000)
    """Rows of a generating source such as `reasoning-gym:<task>`."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of a generating source."""

    @model_validator(mode="after")
    def _one_kind_of_sample(self) -> "BuildDataset":
        if self.sample_rows is not None and self.sample_share is not None:
            raise ValueError("sample_rows and sample_share exclude each other: set one of them")
        if self.min_bytes > self.max_bytes:
            raise ValueError(f"min_bytes {self.min_bytes} is above max_bytes {self.max_bytes}")
        if self.split_by == "document" and not self.dedup:
            raise ValueError("split_by 'document' needs dedup, else equal texts could be in two splits")
        return self

    def compiled(self) -> tuple[steps.Step, ...]:
        """The steps that these arguments mean, in order."""
        done: list[steps.Step] = [steps.DedupStep()] if self.dedup else []
        done.append(steps.LengthStep(min_bytes=self.min_bytes, max_bytes=self.max_bytes))
        if self.sample_rows is not None:
            done.append(steps.SampleStep(rows=self.sample_rows))
        if self.sample_share is not None:
            done.append(steps.SampleStep(share=self.sample_share))
        done.append(
            steps.SplitStep(
                dev_share=self.dev_share, dev_rows=self.dev_rows,
                sealed_share=self.sealed_share, num_folds=self.num_folds, by=self.split_by,
            )
        )  # fmt: skip
        return tuple(done)

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that are published."""
        folds = tuple(f"fold{index}" for index in range(self.num_folds)) if self.sealed_share else ()
        return ("train", "dev", *folds)


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
    sources = _labelled([resolve(ref, cwd=cwd) for ref in args.sources])
    readings = tuple(_reading(source, args) for source in sources)
    records = fingerprint(readings, say)
    planned = plan(args)
    dataset = dataset_digest(records, args.chunk_bytes, planned)
    with ws.lock(f"data-{dataset[:12]}", wait_s=LOCK_WAIT_S):
        if found := intact(ws, dataset):
            say(BuildProgress("reused", 1, 1))
            return found
        with staging(ws, dataset[:12], num_bytes=sum(source.num_bytes for source in sources)) as folder:
            manifest = _build(args, readings, records, planned, dataset, folder, say)
            publish(ws, manifest, folder)
    return manifest


def plan(args: BuildDataset) -> tuple[StepRecord, ...]:
    """The statements that a build runs, in order, with the values bound to them; row counts are still 0."""
    done = [StepRecord(kind="ingest", sql=steps.render(steps.INGEST, target="ingest"))]
    for step in args.compiled():
        template, values = step.compile()
        sql = steps.render(template, previous=done[-1].kind, target=step.kind)
        done.append(StepRecord(kind=step.kind, sql=sql, values=values))
    done.append(StepRecord(kind="publish", sql=steps.render(steps.PUBLISH, previous=done[-1].kind)))
    return tuple(done)


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


def _reading(source: Source, args: BuildDataset) -> Reading:
    columns: tuple[str, ...] = ()
    if source.kind != "text":
        columns = choose_text_columns(source, args.text_columns, sample_records(source, seed=args.seed))
    return Reading(source, columns, args.chunk_bytes, args.num_generated, args.seed)


def _build(
    args: BuildDataset, readings: tuple[Reading, ...], records: tuple[SourceRecord, ...],
    planned: tuple[StepRecord, ...], dataset: str, folder: Path, say: OnProgress,
) -> Manifest:  # fmt: skip
    """Do all steps inside the staging folder and describe what they gave."""
    rows = folder / "rows.parquet"
    read = ingest(readings, records, rows, say)
    with engine.locked_connection(folder) as connection:
        done = tuple(_run(connection, planned, rows, read, say))
        _require_enough(connection, args)
        splits = tuple(_publish_splits(connection, args, done[-1].sql, rows, dataset, say))
    rows.unlink()
    return Manifest(
        dataset=dataset, sources=read, chunk_bytes=args.chunk_bytes, steps=done, splits=splits, engine=engine.version()
    )


def _run(
    connection: "duckdb.DuckDBPyConnection", planned: tuple[StepRecord, ...], rows: Path,
    read: tuple[SourceRecord, ...], say: OnProgress,
) -> Iterator[StepRecord]:  # fmt: skip
    """Execute each step but the last, which is executed for each split; yield them with their row counts."""
    rows_in = sum(source.num_rows + source.num_without_text for source in read)
    for number, step in enumerate(planned[:-1], start=1):
        say(BuildProgress("step", number, len(planned)))
        connection.execute(step.sql, {"rows": str(rows)} if step.kind == "ingest" else step.values)
        rows_out = _count(connection, f"SELECT count(*) FROM {steps.ident(step.kind)}")
        yield step.model_copy(update={"rows_in": rows_in, "rows_out": rows_out})
        rows_in = rows_out
    yield planned[-1].model_copy(update={"rows_in": rows_in, "rows_out": rows_in})


def _count(connection: "duckdb.DuckDBPyConnection", sql: str, values: dict[str, str] | None = None) -> int:
    found = connection.execute(sql, values or {}).fetchone()
    return int(found[0] or 0) if found else 0


def _require_enough(connection: "duckdb.DuckDBPyConnection", args: BuildDataset) -> None:
    """Refuse splits that are too small to judge anything by."""
    counts = dict[str, int](connection.execute("SELECT split, count(*) FROM split GROUP BY split").fetchall())
    for name in args.splits():
        if counts.get(name, 0) < (1 if name == "train" else MIN_ITEMS):
            raise ToolError(_too_few(args, name, counts))


def _too_few(args: BuildDataset, name: str, counts: dict[str, int]) -> str:
    shares = [args.dev_share if args.dev_rows is None else 1.0, (args.sealed_share or 1.0) / args.num_folds]
    needed = round(1.5 * MIN_ITEMS / min(shares))
    return (
        f"{sum(counts.values())} rows are left after all steps, {counts.get(name, 0)} of them in {name!r}; dev and "
        f"each sealed fold need {MIN_ITEMS} or more, train 1. With these shares that takes about {needed} rows: add "
        "data, raise dev_share and sealed_share, or set chunk_bytes (such as 4096) to cut long text files into rows."
    )


def _publish_splits(
    connection: "duckdb.DuckDBPyConnection", args: BuildDataset, sql: str, rows: Path, dataset: str, say: OnProgress
) -> Iterator[SplitRecord]:
    names = args.splits()
    for number, name in enumerate(names, start=1):
        path = rows.parent / f"{name}.parquet"
        connection.execute(sql, {"rows": str(rows), "split": name, "path": str(path)})
        say(BuildProgress("publish", number, len(names)))
        total = "SELECT {} FROM ingest JOIN split USING (row_id) WHERE split = $split"
        yield SplitRecord(
            name=name,
            path=f"{'sealed' if name.startswith('fold') else 'data'}/{dataset[:12]}/{path.name}",
            data_digest=file_digest(path),
            rows=_count(connection, total.format("count(*)"), {"split": name}),
            num_bytes=_count(connection, total.format("sum(num_bytes)"), {"split": name}),
        )
