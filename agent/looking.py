"""What preflight looks at before a plan is drawn up: rows of the data, and the model that is fine-tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

from nightsmith.agent.goal import GoalSpec
from nightsmith.model import catalogue
from nightsmith.model.files import weights_digest
from nightsmith.model.size import ModelSize, model_size
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.columns import ColumnProposal, PairProposal, propose, propose_pairs
from nightsmith.tools.data.conversations import ChatColumns, Conversation, conversation
from nightsmith.tools.data.inspect import Inspection, inspect_data
from nightsmith.tools.data.preferences import PreferenceColumns, pair
from nightsmith.tools.data.readers import Record, records, sample_records
from nightsmith.tools.data.resolve import resolve
from nightsmith.tools.data.sources import Source
from nightsmith.trainer.spec import ModelRef

ASSUMED_ROWS, ASSUMED_ROW_BYTES, ASSUMED_ANSWER_BYTES = 2000, 240, 40
"""Of data that nobody has looked at."""
ASSUMED_SIZE = ModelSize(num_params=135e6, is_byte_level=False, has_chat_template=True)
"""Of a model that nobody has looked at: the built-in one's."""
PRESET_SIZE = ModelSize(num_params=0.0, is_byte_level=True, has_chat_template=False)
"""Of a model that the study trains itself: its speed is known by its preset."""
TEMPLATE_TOKENS = 32
"""What a chat template adds to a row."""

GENERATED_ROWS, SAMPLED_ROWS = 5000, 200
"""Rows that a generator is asked for, by a study and by a look."""


@dataclass(frozen=True)
class DataLook:
    """What the rows of one source are like."""

    num_rows: int = ASSUMED_ROWS
    """Documents, records, or rows that a generator is asked for."""
    num_bytes: int = ASSUMED_ROWS * ASSUMED_ROW_BYTES
    """Bytes of text."""
    longest_bytes: int = 2 * ASSUMED_ROW_BYTES
    """Bytes of the longest row of the sample."""
    answer_bytes: float = ASSUMED_ANSWER_BYTES
    """Mean bytes of an answer; 0 where rows are texts."""
    is_text: bool = False
    """Text files, which have no columns."""
    is_generated: bool = False
    """Rows are made: there are as many as are asked for."""
    columns: ChatColumns | PreferenceColumns | None = None
    """Columns that conversations are made of; null: rows are texts, or see `problem`."""
    why: str = ""
    """Why these columns."""
    problem: str = ""
    """Why rows make no conversations."""
    pairs_problem: str = ""
    """Why rows make no pairs of answers, where a goal trains on pairs."""

    @property
    def has_pairs(self) -> bool:
        """Whether each row has a chosen and a rejected answer."""
        return isinstance(self.columns, PreferenceColumns)

    @property
    def row_bytes(self) -> float:
        """Mean bytes of a row."""
        return self.num_bytes / max(1, self.num_rows)


@dataclass(frozen=True)
class ModelLook:
    """The model that is fine-tuned."""

    name: str
    """As the goal, or the settings, name it."""
    ref: ModelRef | None = None
    """Where it is; null: nobody looked."""
    size: ModelSize = ASSUMED_SIZE
    """How large it is."""


@dataclass(frozen=True)
class Look:
    """Everything that was looked at; a plan without a look rests on assumptions."""

    model: ModelLook
    """The model; of a study from scratch, without meaning."""
    data: Mapping[str, DataLook] = field(default_factory=dict[str, DataLook])
    """By reference."""
    reference: ModelLook | None = None
    """The second model of a comparison."""
    sft: Mapping[str, float | int | str] = field(default_factory=dict[str, float | int | str])
    """Arguments of fine-tuning with LoRA that the settings give."""

    def of(self, ref: str) -> DataLook:
        """What a source is like."""
        return self.data.get(ref, DataLook())

    def tokens(self, num_bytes: float) -> float:
        """Tokens of a conversation with so many bytes of text, about."""
        return num_bytes / self.model.size.bytes_per_token + TEMPLATE_TOKENS * self.model.size.has_chat_template


def begins_at_random(spec: GoalSpec) -> bool:
    """Whether the first stage trains a model from scratch."""
    return spec.methods[:1] == ("pretrain",) and spec.model is None


def blind(spec: GoalSpec, default_model: str | None) -> Look:
    """Nobody looked: only names are known."""
    if begins_at_random(spec):
        return Look(ModelLook("from scratch", size=PRESET_SIZE))
    if spec.intent == "build_data":
        return Look(ModelLook("none", size=ASSUMED_SIZE))
    return Look(ModelLook(spec.model or default_model or catalogue.BUILT_IN))


def look(
    spec: GoalSpec, cwd: Path, default_model: str | None, sft: Mapping[str, float | int | str] | None = None
) -> Look:
    """Look at every source of the goal and at its model. Raises ToolError, or NightsmithError for the model."""
    data = {
        each.ref: look_at(
            resolve(each.ref, cwd=cwd), conversations=spec.methods != ("pretrain",), pairs=_may_be_pairs(spec)
        )
        for each in spec.data
    }
    second = compared_with(spec)
    return Look(
        look_at_model(spec, cwd, default_model), data, look_at_folder(second, cwd) if second else None, sft or {}
    )


def compared_with(spec: GoalSpec) -> str | None:
    """The second model of a comparison, as the goal names it; None where one alone is measured."""
    named = (target.relative_to for target in spec.targets if target.relative_to not in (None, "baseline"))
    return next(named, None) if spec.intent == "compare" else None


def _may_be_pairs(spec: GoalSpec) -> bool:
    """Whether rows are read as pairs of answers where they can be."""
    return "dpo" in spec.methods or spec.intent != "train"


def look_at_model(spec: GoalSpec, cwd: Path, default_model: str | None) -> ModelLook:
    """Find the model, its size and its digest; a study from scratch has none, nor one of data."""
    named = blind(spec, default_model).model
    if begins_at_random(spec) or spec.intent == "build_data":
        return named
    return look_at_folder(named.name, cwd)


def look_at_folder(name: str, cwd: Path) -> ModelLook:
    """A model that is here, by its name. Raises NightsmithError."""
    folder = catalogue.resolve(name, cwd=cwd)
    ref = ModelRef(path=str(folder), weights_digest=weights_digest(folder))
    return ModelLook(name, ref, model_size(folder))


def look_at(source: Source, *, conversations: bool, pairs: bool = False) -> DataLook:
    """Rows of one source, and as what a fine-tuning would read them; `pairs`: as pairs of answers, where they are."""
    seen = inspect_data(source)
    if source.kind == "text" or not conversations:
        return _texts(source, seen)
    sample = _sample(source)
    if not pairs:
        return _conversations(source, seen, sample)
    try:
        proposal = propose_pairs(source, sample)
    except ToolError as problem:
        return replace(_conversations(source, seen, sample), pairs_problem=str(problem))
    both = [each for record in sample if (each := pair(record, proposal.columns))]
    chosen = _looked(source, seen, [each.chosen for each in both], proposal)
    rejected = [each.rejected for each in both]
    return replace(chosen, longest_bytes=max(chosen.longest_bytes, *(len(each.text.encode()) for each in rejected)))


def _conversations(source: Source, seen: Inspection, sample: Sequence[Record]) -> DataLook:
    try:
        proposal = propose(source, sample)
    except ToolError as problem:
        return _texts(source, seen, problem=str(problem))
    found = [each for record in sample if (each := conversation(record, proposal.columns))]
    if not found:
        return _texts(source, seen, problem=f"No record of {source.id} has a prompt and an answer ({proposal.why}).")
    return _looked(source, seen, found, proposal)


def _looked(
    source: Source, seen: Inspection, found: Sequence[Conversation], proposal: ColumnProposal | PairProposal
) -> DataLook:
    sizes = [len(each.text.encode()) for each in found]
    num_rows = GENERATED_ROWS if source.generator else seen.num_rows
    return DataLook(
        num_rows=num_rows, num_bytes=round(mean(sizes) * num_rows), longest_bytes=max(sizes),
        answer_bytes=mean(len(each.answer.encode()) for each in found), is_generated=source.generator is not None,
        columns=proposal.columns, why=proposal.why,
    )  # fmt: skip


def _sample(source: Source) -> list[Record]:
    """The first records; of a generator enough to know how long its rows are."""
    if source.generator is None:
        return sample_records(source)
    return [record for _, _, record in records(source, num_generated=SAMPLED_ROWS, seed=0)]


def _texts(source: Source, seen: Inspection, problem: str = "") -> DataLook:
    rows, size = max(1, seen.num_rows), seen.estimated_tokens or seen.num_bytes
    return DataLook(
        num_rows=rows, num_bytes=size, longest_bytes=size, answer_bytes=0, is_text=source.kind == "text",
        is_generated=source.generator is not None, problem=problem,
    )  # fmt: skip


def long_rows(look: Look, refs: Sequence[str], most_bytes: int | None) -> list[str]:
    """Says of rows that are too long for the model that they are left out."""
    longest = max((look.of(ref).longest_bytes for ref in refs if not look.of(ref).is_text), default=0)
    if most_bytes is None or longest <= most_bytes:
        return []
    context = look.model.size.max_len
    return [f"Rows of more than {most_bytes} bytes are left out: {look.model.name} reads {context} tokens at once."]


def column_notes(look: Look, refs: Sequence[str]) -> list[str]:
    """Which columns were chosen, for the plan: one sentence a table."""
    chosen = [(ref, look.of(ref)) for ref in dict.fromkeys(refs)]
    return [f"{ref}: {seen.why}." for ref, seen in chosen if seen.why and not seen.is_generated]
