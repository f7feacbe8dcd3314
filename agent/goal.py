"""GoalSpec v1: the contract between a person's sentence and everything that runs (DESIGN §3)."""

from typing import Literal

from pydantic import Field

from nightsmith.evals.types import Target
from nightsmith.record.budget import Budget
from nightsmith.record.digest import Contract

Intent = Literal["train", "evaluate", "compare", "build_data"]
Method = Literal["pretrain", "sft", "dpo", "grpo"]
DataRole = Literal["train", "eval", "test", "preference", "prompts", "replay"]
PipelineStep = Literal[
    "dedup", "near_dedup", "redact_pii", "decontaminate", "language_filter", "quality_filter", "split", "sample"
]
RewardKind = Literal["exact", "unit_tests", "schema", "judge", "command", "described"]


class DataRef(Contract):
    """A source as the goal names it."""

    ref: str
    """Path, URI, name or phrase, verbatim."""
    role: DataRole = "train"
    """What it is used for."""
    stage: int | None = None
    """Index into the methods; null: every stage that can use it."""


class PipelineRequest(Contract):
    """A data step that the goal asks for."""

    step: PipelineStep
    """Step."""
    amount: float | None = None
    """How much, in `unit`."""
    unit: Literal["share", "rows"] | None = None
    """Unit of the amount; shares are fractions."""
    by: str | None = None
    """Column or criterion."""


class Setting(Contract):
    """A setting that the goal fixes, or starts from."""

    name: str
    """learning_rate, lora_rank, seq_len, epochs, steps, batch_size, beta, seeds, …"""
    value: float | int | str
    """Value."""
    how: Literal["fixed", "start"] = "fixed"
    """`fixed`: never changed; `start`: a first value that the search may leave."""


class ArchitectureRequest(Contract):
    """The shape that the goal asks for; what is null is planned."""

    preset: str | None = None
    """Named preset."""
    params_total: float | None = None
    """Parameters in all."""
    params_active: float | None = None
    """Parameters active per token."""
    experts: int | None = None
    """Routed experts a layer."""
    top_k: int | None = None
    """Experts per token."""
    layers: int | None = None
    """Layers."""
    vocab: int | None = None
    """Vocabulary size."""
    context: int | None = None
    """Context in tokens."""


class RewardRequest(Contract):
    """The reward of an RL goal."""

    kind: RewardKind
    """How answers are scored."""
    ref: str | None = None
    """File, command or description."""


class Schedule(Contract):
    """When a goal recurs."""

    cron: str
    """Five fields; Sunday is 0."""
    until: str | None = None
    """HH:MM by which an occurrence ends."""
    timezone: str | None = None
    """IANA name; null: the machine's."""


class Output(Contract):
    """What becomes of the winner."""

    name: str | None = None
    """Name of the model."""
    register_model: bool = Field(default=False, alias="register")
    """Register it in MLflow."""
    export: str | None = None
    """Path or format to export to."""


class GoalSpec(Contract):
    """A goal as understood: frozen, digested, stored. Every literal is from the text or a named default."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this contract."""
    goal: str
    """The text, verbatim."""
    intent: Intent = "train"
    """What kind of work it asks for."""
    methods: tuple[Method, ...] = ()
    """Training stages in order."""
    model: str | None = None
    """Model as named; null: from scratch if the first method is pretrain, else the configured default, else asked."""
    adaptation: Literal["full", "lora", "qlora"] | None = None
    """How weights are adapted; null is planned."""
    data: tuple[DataRef, ...] = ()
    """Sources."""
    pipeline: tuple[PipelineRequest, ...] = ()
    """Data steps asked for; more may be planned."""
    avoid: tuple[str, ...] = ()
    """Steps, methods and settings that the goal forbids."""
    settings: tuple[Setting, ...] = ()
    """Fixed or initial settings."""
    architecture: ArchitectureRequest | None = None
    """Shape asked for."""
    reward: RewardRequest | None = None
    """Reward of an RL goal."""
    targets: tuple[Target, ...] = ()
    """What must be reached."""
    guardrails: tuple[Target, ...] = ()
    """What must not be lost (difference = candidate - reference)."""
    budget: Budget = Budget()
    """What may be spent."""
    gpus: int | None = None
    """Accelerators in all."""
    nodes: int | None = None
    """Machines."""
    schedule: Schedule | None = None
    """When it recurs."""
    output: Output | None = None
    """What becomes of the winner."""
