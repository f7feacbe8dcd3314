"""The manifest of a build: what went in, what was done as SQL, what came out, each by its digest."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from nightsmith.record.digest import Contract, canonical_json, file_digest, sha256
from nightsmith.record.errors import Damaged
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.conversations import ChatColumns
from nightsmith.tools.data.preferences import PreferenceColumns
from nightsmith.tools.data.sources import Parameter

FILE = "manifest.json"


class FileRecord(Contract):
    """One source file."""

    name: str
    """Path relative to the source."""
    data_digest: str
    """SHA-256 of its bytes."""
    num_bytes: int = Field(ge=0)
    """Size."""


class GeneratorRecord(Contract):
    """What made a source's rows, so that each can be made again."""

    task: str
    """Task of reasoning-gym."""
    parameters: tuple[tuple[str, Parameter], ...] = ()
    """What differs from the task's defaults."""
    seed: int
    """Seed of the rows."""
    num_generated: int = Field(gt=0)
    """How many were made; a row's name ends with its place among them."""


class SourceRecord(Contract):
    """One source as it was read."""

    ref: str
    """The reference as it was given."""
    id: str
    """Catalogue id, absolute path or glob."""
    label: str
    """First part of the names of its rows."""
    kind: Literal["text", "jsonl", "csv", "parquet", "generator"]
    """How its rows were read."""
    note: str = ""
    """How its files were selected, or which generator made its rows."""
    generator: GeneratorRecord | None = None
    """Set where `kind` is `generator` (datasets of earlier versions lack it)."""
    text_columns: tuple[str, ...] = ()
    """Columns whose values make the text."""
    chat_columns: ChatColumns | PreferenceColumns | None = None
    """Columns whose values make the conversation, or the pair of answers; null: rows are texts."""
    columns_why: str = ""
    """How these columns were found, in words; empty where they were given."""
    role: Literal["train", "dev", "sealed"] = "train"
    """`dev` and `sealed`: all rows belong to that split; `train`: they are split."""
    files: tuple[FileRecord, ...] = ()
    """Its files."""
    skipped: dict[str, int] = {}
    """Reason -> files left out."""
    num_rows: int = Field(default=0, ge=0)
    """Rows read."""
    num_replaced: int = Field(default=0, ge=0)
    """Rows with bytes that are not UTF-8, now U+FFFD."""
    num_without_text: int = Field(default=0, ge=0)
    """Records left out: a text column missing or not a string; of conversations, an empty prompt or answer."""

    def content(self) -> dict[str, object]:
        """What the rows follow from: not where the files lie, nor how they were asked for."""
        files = [[file.name, file.data_digest] for file in self.files]
        generator = self.note if self.kind == "generator" else ""
        content: dict[str, object] = {
            "label": self.label, "kind": self.kind, "columns": self.text_columns, "files": files, "gen": generator,
        }  # fmt: skip
        if self.chat_columns is not None:
            content["chat"] = self.chat_columns.model_dump(exclude_none=True)
        return content if self.role == "train" else {**content, "role": self.role}


class StepRecord(Contract):
    """One step as it was done."""

    kind: str
    """Name of the step."""
    sql: str
    """The statement."""
    values: dict[str, float | int | str] = {}
    """Values bound to its parameters."""
    rows_in: int = Field(default=0, ge=0)
    """Rows before it."""
    rows_out: int = Field(default=0, ge=0)
    """Rows after it."""


class SplitRecord(Contract):
    """One published file."""

    name: str
    """`train`, `dev`, or `fold0`, `fold1`, … (sealed)."""
    path: str
    """Path relative to the workspace."""
    data_digest: str
    """SHA-256 of the file."""
    rows: int = Field(ge=0)
    """Rows."""
    num_bytes: int = Field(ge=0)
    """Bytes of text."""
    max_row_bytes: int | None = None
    """Bytes of the longest row's text; null: not measured (rows are texts)."""
    max_answer_bytes: int | None = None
    """Bytes of the longest answer (the last assistant turn); null: rows are texts."""


class Manifest(Contract):
    """A published dataset."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this contract."""
    dataset: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the sources' content and the steps; its first 12 digits name the folder."""
    rows: Literal["text", "chat", "preference"] = "text"
    """`chat`: the files also have the column `messages`; `preference`: `chosen` (the same) and `rejected` too."""
    sources: tuple[SourceRecord, ...]
    """What was read."""
    without: tuple[str, ...] = ()
    """Digests of datasets whose held-out rows were taken out of this one's train split."""
    chunk_bytes: int | None = None
    """Documents were cut into rows of at most so many bytes; null: a document is a row."""
    steps: tuple[StepRecord, ...]
    """What was done, in order."""
    splits: tuple[SplitRecord, ...]
    """What was published."""
    engine: str
    """Program and version that wrote the files; another one may write other bytes for the same rows."""

    @property
    def name(self) -> str:
        """Name of its folders."""
        return self.dataset[:12]

    def split(self, name: str) -> SplitRecord:
        """The record of one split. ToolError names the splits there are."""
        for record in self.splits:
            if record.name == name:
                return record
        have = ", ".join(record.name for record in self.splits)
        raise ToolError(f"Dataset {self.name} has no split {name!r}. Splits: {have}.")

    def has_pairs(self, split: Literal["dev", "sealed"]) -> bool:
        """Whether every row of a split has a rejected answer too: rows that only evaluate need not."""
        own = [source for source in self.sources if source.role == split]
        sources = own or [source for source in self.sources if source.role == "train"]
        return self.rows == "preference" and all(isinstance(s.chat_columns, PreferenceColumns) for s in sources)

    def path(self, ws: Workspace, name: str) -> Path:
        """Absolute path of one split's file."""
        return ws.root / self.split(name).path


def dataset_digest(
    sources: tuple[SourceRecord, ...], chunk_bytes: int | None, steps: tuple[StepRecord, ...],
    without: tuple[str, ...] = (),
) -> str:  # fmt: skip
    """Digest of what a build's rows follow from."""
    done = [[step.kind, step.sql, step.values] for step in steps]
    contents = [source.content() for source in sources]
    followed = {"schema": 1, "sources": contents, "chunk": chunk_bytes, "steps": done}
    return sha256(canonical_json({**followed, "without": without} if without else followed))


def require_dataset(named: str, manifest: Manifest) -> None:
    """Refuse a manifest that is not the one that was named; `$dataset` and other names of a plan mean any."""
    if not named.startswith("$") and named not in (manifest.name, manifest.dataset):
        raise ToolError(
            f"Dataset {named!r} was named, but {manifest.name} was given. Name {manifest.name} or '$dataset'."
        )


def read_manifest(ws: Workspace, dataset: str) -> Manifest:
    """Read the manifest of a published dataset, by its digest or the first 12 digits of it.

    Raises:
        ToolError: there is no such dataset; names those there are.
        Damaged: the manifest cannot be read.
    """
    name = dataset[:12]
    path = ws.data / name / FILE
    if not re.fullmatch(r"[0-9a-f]{12}", name) or not path.is_file():
        have = ", ".join(sorted(entry.parent.name for entry in ws.data.glob(f"[0-9a-f]*/{FILE}"))) or "none"
        raise ToolError(f"There is no dataset {dataset!r}. Datasets in this workspace: {have}. Build one first.")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise Damaged(f"{path} cannot be read as a manifest. Build the dataset again to mend it.") from error


def damaged_splits(ws: Workspace, manifest: Manifest) -> tuple[str, ...]:
    """Names of splits whose file is missing or has other bytes than the manifest says."""
    return tuple(split.name for split in manifest.splits if not _is_intact(ws.root / split.path, split.data_digest))


def _is_intact(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest
