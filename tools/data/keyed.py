"""Steps of builds whose rows have a key (the prompt of a conversation) or a role (rows that only evaluate).

They do what the steps of `steps.py` do, within roles and by keys: rows of one key are never in two splits.
"""

from typing import Literal

from pydantic import Field

from nightsmith.record.digest import Contract
from nightsmith.tools.data.steps import SQL_NUMBER, UNITS, Values

_HASH = "sha256(nfc_normalize(trim(regexp_replace({value}, '\\s+', ' ', 'g'))))"

INGEST = f"""\
CREATE TABLE {{target}} AS
SELECT row_id, source, role, strlen(text) AS num_bytes, strlen(answer) AS answer_bytes,
       {_HASH.format(value="text")} AS text_hash,
       {_HASH.format(value="{key}")} AS key_hash
FROM read_parquet($rows)"""
"""`key` is what is placed as a whole: the opening of a conversation, or the text."""
INGEST_PAIRS = f"""\
CREATE TABLE {{target}} AS
SELECT row_id, source, role, strlen(text) + greatest(0, strlen(rejected) - strlen(answer)) AS num_bytes,
       strlen(answer) AS answer_bytes,
       {_HASH.format(value="text || chr(10) || rejected")} AS text_hash,
       {_HASH.format(value="key")} AS key_hash
FROM read_parquet($rows)"""
"""Of pairs: as long as the longer of their conversations, and equal where both answers are."""

DEDUP = """\
CREATE TABLE {target} AS
SELECT * FROM {previous}
QUALIFY row_number() OVER (PARTITION BY role, text_hash ORDER BY source, row_id) = 1"""

SAMPLE_ROWS = """\
CREATE TABLE {target} AS
SELECT * FROM {previous}
QUALIFY role <> 'train'
     OR row_number() OVER (PARTITION BY role ORDER BY sha256('sample:' || row_id), row_id) <= $rows"""

SAMPLE_SHARE = f"""\
CREATE TABLE {{target}} AS
SELECT * FROM {{previous}}
WHERE role <> 'train' OR {SQL_NUMBER.format(digest="sha256('sample:' || row_id)")} < $share"""

SPLIT = f"""\
CREATE TABLE {{target}} AS
WITH placed AS (
  SELECT row_id, role, key_hash, {SQL_NUMBER.format(digest="sha256('split:' || {unit})")} AS place FROM {{previous}}
), sealed AS (
  SELECT greatest($sealed_share, coalesce(max(place) + 1 / 4503599627370496.0, 0)) AS sealed_end
  FROM (SELECT place FROM placed WHERE role = 'train' ORDER BY place LIMIT $sealed_least)
), dev AS (
  SELECT greatest(any_value(sealed_end) + $dev_share, coalesce(max(place) + 1 / 4503599627370496.0, 0)) AS dev_end
  FROM sealed LEFT JOIN (
    SELECT place FROM placed, sealed WHERE role = 'train' AND place >= sealed_end ORDER BY place LIMIT $dev_least
  ) ON true
)
SELECT row_id, key_hash, CASE
  WHEN role = 'sealed' THEN 'fold0'
  WHEN role = 'dev' THEN 'dev'
  WHEN place < sealed_end
    THEN 'fold' || least(floor($num_folds * percent_rank() OVER (
      PARTITION BY role = 'train' AND place < sealed_end ORDER BY place))::INTEGER, $num_folds - 1)
  WHEN place < dev_end THEN 'dev'
  ELSE 'train' END AS split
FROM placed, sealed, dev"""
"""Like the plain split, but a small table still gives dev and each sealed fold their least number of rows.

Whether a row is sealed follows from its place alone; folds are equal parts of the sealed rows in the order of places.
"""

_CLAIM = "CASE role WHEN 'sealed' THEN 0 WHEN 'dev' THEN 1 ELSE 2 END"
DECONTAMINATE = f"""\
CREATE TABLE {{target}} AS
SELECT * FROM {{previous}}
QUALIFY {_CLAIM} = min({_CLAIM}) OVER (PARTITION BY key_hash)"""

WITHOUT = f"""\
CREATE TABLE {{target}} AS
SELECT * FROM {{previous}}
WHERE split <> 'train' OR key_hash NOT IN (SELECT {_HASH.format(value="text")} FROM read_parquet($held_out))"""

PUBLISH_CHAT = """\
COPY (
  SELECT row_id, text, source, messages FROM read_parquet($rows) JOIN {previous} USING (row_id)
  WHERE split = $split ORDER BY row_id
) TO $path (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 8192)"""
PUBLISH_PAIRS = PUBLISH_CHAT.replace(
    "source, messages FROM", "source, messages, messages AS chosen, rejected_messages AS rejected\n  FROM"
)


class DedupStep(Contract):
    """Of rows of one role with the same text (after NFC, runs of white space as one space), keep the first by name."""

    kind: Literal["dedup"] = "dedup"
    """Discriminator."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        return DEDUP, {}


class SampleStep(Contract):
    """Keep a sample of the rows that are not only for evaluation."""

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
    """Place rows by their role, else by a hash of their key (or document)."""

    kind: Literal["split"] = "split"
    """Discriminator."""
    dev_share: float = Field(ge=0, lt=1)
    """Share of dev among the rows without a role; 0: none, or as many as `dev_least`."""
    dev_least: int = Field(ge=0)
    """Fewest rows of dev without a role."""
    sealed_share: float = Field(ge=0, lt=1)
    """Share of all sealed folds together."""
    sealed_least: int = Field(ge=0)
    """Fewest rows in all sealed folds together without a role."""
    num_folds: int = Field(gt=0)
    """Sealed folds."""
    by: Literal["text", "document"] = "text"
    """Placed as a whole: equal keys, or the rows of one document."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        unit = "key_hash" if self.by == "text" else UNITS[self.by]
        return SPLIT.replace("{unit}", unit), self.model_dump(exclude={"kind", "by"})


class DecontaminateStep(Contract):
    """Rows for evaluation win: others with their key are left out, those of dev too where sealed rows have it."""

    kind: Literal["decontaminate"] = "decontaminate"
    """Discriminator."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        return DECONTAMINATE, {}


class WithoutStep(Contract):
    """What other datasets hold out is not trained on; `$held_out` is the file of it."""

    kind: Literal["without"] = "without"
    """Discriminator."""

    def compile(self) -> tuple[str, Values]:
        """SQL and its bound values."""
        return WITHOUT, {}
