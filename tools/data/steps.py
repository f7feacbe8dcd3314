"""Steps of a build. Each is frozen data that compiles to one readable DuckDB statement with bound values.

A step reads the table of the step before it and writes its own. The tables hold one short row for each document
(`row_id, source, text_hash, num_bytes`), never its text, so that a build's memory does not grow with the text.
"""

from typing import Annotated, Literal

from pydantic import Field

from nightsmith.record.digest import Contract

SQL_NUMBER = "('0x' || substr({digest}, 1, 13))::BIGINT / 4503599627370496.0"
"""The first 52 bits of a SHA-256 as a number in [0, 1). DuckDB's own hash() is not promised to stay the same."""

INGEST = """\
CREATE TABLE {target} AS
SELECT row_id, source, strlen(text) AS num_bytes,
       sha256(nfc_normalize(trim(regexp_replace(text, '\\s+', ' ', 'g')))) AS text_hash
FROM read_parquet($rows)"""

DEDUP = """\
CREATE TABLE {target} AS
SELECT * FROM {previous}
QUALIFY row_number() OVER (PARTITION BY text_hash ORDER BY source, row_id) = 1"""

LENGTH = """\
CREATE TABLE {target} AS
SELECT * FROM {previous}
WHERE num_bytes BETWEEN $min_bytes AND $max_bytes AND text_hash <> sha256('')"""

SAMPLE_ROWS = """\
CREATE TABLE {target} AS
SELECT * FROM {previous}
ORDER BY sha256('sample:' || row_id), row_id LIMIT $rows"""

SAMPLE_SHARE = f"""\
CREATE TABLE {{target}} AS
SELECT * FROM {{previous}}
WHERE {SQL_NUMBER.format(digest="sha256('sample:' || row_id)")} < $share"""

SPLIT = f"""\
CREATE TABLE {{target}} AS
WITH placed AS (
  SELECT row_id, {SQL_NUMBER.format(digest="sha256('split:' || {unit})")} AS place FROM {{previous}}
)
SELECT row_id, CASE
  WHEN place < $sealed_share THEN 'fold' || least(floor(place / $sealed_share * $num_folds)::INTEGER, $num_folds - 1)
  WHEN place < {{dev_end}} THEN 'dev'
  ELSE 'train' END AS split
FROM placed"""

DEV_END_OF_SHARE = "$sealed_share + $dev_share"
DEV_END_OF_ROWS = (
    "(SELECT coalesce(min(place), 1) FROM (SELECT place FROM placed WHERE place >= $sealed_share"
    " ORDER BY place OFFSET $dev_rows))"
)

PUBLISH = """\
COPY (
  SELECT row_id, text, source FROM read_parquet($rows) JOIN {previous} USING (row_id)
  WHERE split = $split ORDER BY row_id
) TO $path (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 8192)"""

UNITS = {"text": "text_hash", "document": "regexp_replace(source, ':[0-9]+$', '')"}

Values = dict[str, float | int | str]


class DedupStep(Contract):
    """Of rows with the same text (after NFC, runs of white space as one space), keep the first by name."""

    kind: Literal["dedup"] = "dedup"
    """Discriminator."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        return DEDUP, {}


class LengthStep(Contract):
    """Keep rows whose text has so many bytes and is not only white space."""

    kind: Literal["length"] = "length"
    """Discriminator."""
    min_bytes: int = Field(ge=0)
    """Fewest bytes of UTF-8."""
    max_bytes: int = Field(gt=0)
    """Most bytes of UTF-8."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        return LENGTH, {"min_bytes": self.min_bytes, "max_bytes": self.max_bytes}


class SampleStep(Contract):
    """Keep a sample: so many rows, or about a share; which ones follows from the hash of their row ids."""

    kind: Literal["sample"] = "sample"
    """Discriminator."""
    rows: int | None = Field(default=None, gt=0)
    """Rows; null: a share."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share, where `rows` is null."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        if self.rows is not None:
            return SAMPLE_ROWS, {"rows": self.rows}
        return SAMPLE_SHARE, {"share": self.share}


class SplitStep(Contract):
    """Place each row in train, dev or a sealed fold by a hash of its text (or document), never by chance."""

    kind: Literal["split"] = "split"
    """Discriminator."""
    dev_share: float = Field(ge=0, lt=1)
    """Share of dev, where `dev_rows` is null."""
    dev_rows: int | None = Field(default=None, gt=0)
    """Rows of dev; null: a share."""
    sealed_share: float = Field(ge=0, lt=1)
    """Share of all sealed folds together."""
    num_folds: int = Field(gt=0)
    """Sealed folds."""
    by: Literal["text", "document"] = "text"
    """Placed as a whole: equal texts, or the rows of one document."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        values: Values = {"sealed_share": self.sealed_share, "num_folds": self.num_folds}
        template = SPLIT.replace("{unit}", UNITS[self.by])
        if self.dev_rows is not None:
            return template.replace("{dev_end}", DEV_END_OF_ROWS), {**values, "dev_rows": self.dev_rows}
        return template.replace("{dev_end}", DEV_END_OF_SHARE), {**values, "dev_share": self.dev_share}


Step = Annotated[DedupStep | LengthStep | SampleStep | SplitStep, Field(discriminator="kind")]


def ident(name: str) -> str:
    """Quote an identifier for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def render(template: str, *, previous: str = "", target: str = "") -> str:
    """Put quoted table names into a statement."""
    return template.replace("{previous}", ident(previous)).replace("{target}", ident(target))
