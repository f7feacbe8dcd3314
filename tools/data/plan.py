"""What a build is asked for, and the statements that this means. Pure: nothing is read."""

from typing import Literal

from pydantic import Field, model_validator

from nightsmith.tools.base import ToolArgs, ToolError
from nightsmith.tools.data import keyed, steps
from nightsmith.tools.data.conversations import ChatColumns
from nightsmith.tools.data.manifest import StepRecord
from nightsmith.tools.data.preferences import PreferenceColumns

MIN_ITEMS = 8
"""Fewest rows of dev and of each sealed fold: with fewer, nothing can be judged."""
WANTED_DEV, WANTED_SEALED = 200, 400
"""Rows of dev and of each sealed fold beyond which more rows hardly narrow a share's bound (2 to 3 points)."""
LEAST_SHARE, MOST_SHARE = 0.02, 0.2
"""Shares of dev, and of all sealed folds together, stay between these."""
ROWS_A_FOLD, MOST_FOLDS = 4000, 3
"""A further sealed fold for so many rows: each allows a look of its own."""
FEWEST_ROWS = 24
"""8 rows to train on beside 8 of dev and 8 of a sealed fold."""


class BuildDataset(ToolArgs):
    """Read sources, drop duplicates and what is too short or long, and publish train, dev and sealed splits."""

    sources: tuple[str, ...] = Field(default=(), max_length=32)
    """Folders, files, globs, built-in sources, or the words a goal uses for them; empty: all rows only evaluate."""
    rows: Literal["text", "chat", "preference"] = "text"
    """`text`: a row is a text; `chat`: a conversation of prompt and answer, or of several turns; `preference`: two
    answers to one prompt, the first preferred (rows that only evaluate may be conversations)."""
    columns: dict[str, ChatColumns | PreferenceColumns] = {}
    """Source as given -> columns of its conversations or pairs; of sources left out: proposed from names and samples.
    """
    text_columns: tuple[str, ...] = ()
    """Columns of tables that make the text, joined by newlines; empty: chosen by their names, and recorded."""
    dev_sources: tuple[str, ...] = Field(default=(), max_length=32)
    """Sources whose rows form dev; no others are in it then."""
    sealed_sources: tuple[str, ...] = Field(default=(), max_length=32)
    """Sources whose rows form the one sealed fold; no others are in it then."""
    without: tuple[str, ...] = Field(default=(), max_length=32)
    """Digests of built datasets (12 or 64 digits) whose dev and sealed rows must not be trained on."""
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
    """What is placed as a whole: equal texts (of conversations: equal prompts), or all rows of one document (with
    chunk_bytes; needs dedup)."""
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

    @model_validator(mode="after")
    def _conversations_stay_whole(self) -> "BuildDataset":
        if self.rows == "text" and self.columns:
            raise ValueError("columns are those of conversations: set rows to 'chat', or text_columns instead")
        if self.has_turns and (self.chunk_bytes is not None or self.split_by == "document"):
            raise ValueError("conversations are not cut: leave out chunk_bytes, and split_by must be 'text'")
        if self.has_turns and self.text_columns:
            raise ValueError("text_columns are for rows of text: set columns with prompt and completion")
        if self.rows == "preference" and (single := [ref for ref in self.sources if self._is_single(ref)]):
            raise ValueError(f"columns of {single[0]!r} need chosen and rejected, as rows is 'preference'")
        return self

    @model_validator(mode="after")
    def _roles_are_apart(self) -> "BuildDataset":
        if not self.by_role():
            raise ValueError("no source is given: name sources, or dev_sources or sealed_sources that only evaluate")
        roles: dict[str, set[str]] = {}
        for role, ref in self.by_role():
            roles.setdefault(ref, set()).add(role)
        if shared := [ref for ref, found in roles.items() if len(found) > 1]:
            both = " and ".join(sorted(roles[shared[0]]))
            raise ValueError(f"{shared[0]!r} is given for {both}: rows cannot be both, so name it for one")
        if unknown := sorted(self.columns.keys() - roles.keys()):
            raise ValueError(f"columns are given for {unknown[0]!r}, which is not among the sources")
        if self.dev_rows is not None and self.dev_sources:
            raise ValueError("dev_rows and dev_sources exclude each other: dev is made of its sources then")
        return self

    def by_role(self) -> tuple[tuple[Literal["train", "dev", "sealed"], str], ...]:
        """(role, source) of all sources."""
        return (
            *(("train", ref) for ref in self.sources),
            *(("dev", ref) for ref in self.dev_sources),
            *(("sealed", ref) for ref in self.sealed_sources),
        )

    def _is_single(self, ref: str) -> bool:
        return isinstance(self.columns.get(ref), ChatColumns)

    @property
    def has_turns(self) -> bool:
        """Whether rows are conversations, or pairs of them."""
        return self.rows != "text"

    @property
    def has_roles(self) -> bool:
        """Whether some rows only evaluate, here or in another dataset."""
        return bool(self.dev_sources or self.sealed_sources or self.without)

    @property
    def is_keyed(self) -> bool:
        """Whether rows are placed by role or prompt, not by their text alone."""
        return self.has_turns or self.has_roles

    def compiled(self) -> tuple["Step", ...]:
        """The steps that these arguments mean, in order."""
        kinds = keyed if self.is_keyed else steps
        done: list[Step] = [kinds.DedupStep()] if self.dedup else []
        done.append(steps.LengthStep(min_bytes=self.min_bytes, max_bytes=self.max_bytes))
        if self.dev_sources or self.sealed_sources:
            done.append(keyed.DecontaminateStep())
        if self.sample_rows is not None:
            done.append(kinds.SampleStep(rows=self.sample_rows))
        if self.sample_share is not None:
            done.append(kinds.SampleStep(share=self.sample_share))
        done.append(self._split())
        return (*done, keyed.WithoutStep()) if self.without else tuple(done)

    def _split(self) -> "Step":
        if not self.is_keyed:
            return steps.SplitStep(
                dev_share=self.dev_share, dev_rows=self.dev_rows,
                sealed_share=self.sealed_share, num_folds=self.num_folds, by=self.split_by,
            )  # fmt: skip
        sealed = 0.0 if self.sealed_sources else self.sealed_share
        dev = 0.0 if self.dev_sources or self.dev_rows else self.dev_share
        return keyed.SplitStep(
            dev_share=dev, dev_least=0 if self.dev_sources else self.dev_rows or MIN_ITEMS, sealed_share=sealed,
            sealed_least=MIN_ITEMS * self.num_folds if sealed else 0, num_folds=self.num_folds, by=self.split_by,
        )  # fmt: skip

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that are published."""
        if not self.sources:
            held = (("dev", self.dev_sources), ("fold0", self.sealed_sources))
            return tuple(name for name, refs in held if refs)
        if self.sealed_sources:
            return ("train", "dev", "fold0")
        folds = tuple(f"fold{index}" for index in range(self.num_folds)) if self.sealed_share else ()
        return ("train", "dev", *folds)


Step = (
    steps.DedupStep | steps.LengthStep | steps.SampleStep | steps.SplitStep
    | keyed.DedupStep | keyed.SampleStep | keyed.SplitStep | keyed.DecontaminateStep | keyed.WithoutStep
)  # fmt: skip


def plan(args: BuildDataset) -> tuple[StepRecord, ...]:
    """The statements that a build runs, in order, with the values bound to them; row counts are still 0."""
    ingest = {
        "text": keyed.INGEST.replace("{key}", "text") if args.is_keyed else steps.INGEST,
        "chat": keyed.INGEST.replace("{key}", "key"),
        "preference": keyed.INGEST_PAIRS,
    }  # fmt: skip
    publish = {"text": steps.PUBLISH, "chat": keyed.PUBLISH_CHAT, "preference": keyed.PUBLISH_PAIRS}
    done = [StepRecord(kind="ingest", sql=steps.render(ingest[args.rows], target="ingest"))]
    for step in args.compiled():
        template, values = step.compile()
        sql = steps.render(template, previous=done[-1].kind, target=step.kind)
        done.append(StepRecord(kind=step.kind, sql=sql, values=values))
    done.append(StepRecord(kind="publish", sql=steps.render(publish[args.rows], previous=done[-1].kind)))
    return tuple(done)


def fitting_shares(num_rows: int) -> tuple[float, float, int]:
    """Shares of dev and of all sealed folds, and the number of folds, that suit so many rows of conversations.

    Small tables hold out a fifth twice; large ones no more than judging needs. A build gives dev and each fold at least
    8 rows whatever the shares.

    Raises:
        ToolError: there are fewer than 24 rows: too few to train on, to screen by and to prove with.
    """
    if num_rows < FEWEST_ROWS:
        raise ToolError(
            f"{num_rows} rows are too few: {MIN_ITEMS} are held out to screen by, {MIN_ITEMS} are sealed, some must "
            f"be left to train on. Give {FEWEST_ROWS} rows or more."
        )
    folds = max(1, min(MOST_FOLDS, num_rows // ROWS_A_FOLD))
    dev = min(MOST_SHARE, max(LEAST_SHARE, WANTED_DEV / num_rows))
    sealed = min(MOST_SHARE, max(LEAST_SHARE * folds, folds * WANTED_SEALED / num_rows))
    return round(dev, 3), round(sealed, 3), folds
