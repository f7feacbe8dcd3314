"""The wire form's table: short keys, the GoalSpec fields they stand for, and what may stand there.

From this one table follow the JSON schema, the expansion into a GoalSpec and its inverse (`nightsmith.agent.wire`).
"""

from dataclasses import dataclass
from typing import get_args

from nightsmith.agent.goal import DataRole, Intent, Method, PipelineStep, RewardKind
from nightsmith.agent.literals import Candidate
from nightsmith.agent.reading import Kind
from nightsmith.evals.types import MetricName, Operator


@dataclass(frozen=True)
class Choice:
    """One of the canonical names."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Pick:
    """A literal by its id."""

    kinds: tuple[Kind, ...]
    """Kinds of literal that are accepted."""
    whole: bool = False
    """Whether it must be a whole number."""
    units: tuple[str, ...] = ()
    """Units that fit best, where several literals have the same value."""
    names: tuple[str, ...] = ()
    """Canonical names allowed in the literal's place."""
    never: tuple[str, ...] = ()
    """Units that a literal here cannot have."""
    asks: str = ""
    """Question to the person where a literal of such a unit was picked: the text has no better one."""

    def takes(self, literal: Candidate) -> bool:
        """Whether a literal's kind, wholeness and unit suit this place."""
        return literal.kind in self.kinds and (literal.is_whole or not self.whole) and literal.unit not in self.never


@dataclass(frozen=True)
class Index:
    """Index into the methods."""


@dataclass(frozen=True)
class Flag:
    """True, or left out."""


@dataclass(frozen=True)
class Many:
    """A list."""

    item: "Node"
    most: int


@dataclass(frozen=True)
class Field:
    """One key of a record."""

    key: str
    """Key on the wire."""
    name: str
    """Field of the spec; `a.b` is field b of the record a."""
    node: "Node"
    required: bool = False
    default: object = None
    """Value of the spec that is left out on the wire."""


@dataclass(frozen=True)
class Record:
    """Keys in their fixed order: required ones first, as some servers' grammars demand."""

    fields: tuple[Field, ...]


Node = Choice | Pick | Index | Flag | Many | Record

TRIAL_UNITS = (
    "trial", "trials", "attempt", "attempts", "try", "tries", "run", "runs", "experiment", "experiments", "iteration",
    "iterations", "round", "rounds", "shot", "shots",
)  # fmt: skip
OTHER_WORK_UNITS = (
    "step", "steps", "epoch", "epochs", "pass", "passes", "gpu", "gpus", "card", "cards", "accelerator",
    "accelerators", "h100", "h100s", "h200", "h200s", "a100", "a100s", "node", "nodes", "machine", "machines", "server",
    "servers", "seed", "seeds", "layer", "layers", "expert", "experts", "head", "heads", "parameter", "parameters",
    "params", "row", "rows", "gpu-hour", "gpu-hours", "gpu-h", "gpu hour", "gpu hours", "rollouts",
)  # fmt: skip
WORK_UNITS = (*TRIAL_UNITS, *OTHER_WORK_UNITS)
"""What counts work or size, and is therefore no measure of a model."""
AMOUNT = Pick(
    ("number",), units=("share", "rows"), never=tuple(unit for unit in WORK_UNITS if unit not in ("row", "rows"))
)
"""How much data a step takes: rows, a share."""
TEXT = Pick(("text",))
VALUE = Pick(("number", "duration"), units=("share", "tokens", "token", "x"), never=WORK_UNITS, asks="targets")
"""The value of a target."""
NUMBER = Pick(("number",))


def _count(*units: str) -> Pick:
    return Pick(("number",), whole=True, units=units)


PIPELINE_STEPS: tuple[str, ...] = get_args(PipelineStep)
METHODS: tuple[str, ...] = get_args(Method)
SETTINGS = (
    "learning_rate", "batch_size", "steps", "epochs", "seq_len", "seed", "seeds", "warmup", "weight_decay", "schedule",
    "optimizer", "beta2", "grad_clip", "router_aux_loss_coef", "dropout", "lora_rank", "lora_alpha", "beta",
    "temperature", "group_size", "max_new_tokens", "gradient_accumulation", "precision", "tokens", "hidden_size",
)  # fmt: skip
AVOIDABLE = (*PIPELINE_STEPS, *METHODS, "full", "lora", "qlora", *SETTINGS, "architecture", "new_data")
DATA_REF = Record(
    (
        Field("r", "ref", TEXT, required=True),
        Field("as", "role", Choice(get_args(DataRole)), default="train"),
        Field("at", "stage", Index()),
    )
)
STEP = Record(
    (
        Field("do", "step", Choice(PIPELINE_STEPS), required=True),
        Field("n", "amount", AMOUNT),
        Field("u", "unit", Choice(("share", "rows"))),
        Field("by", "by", TEXT),
    )
)
SETTING = Record(
    (
        Field("k", "name", Pick(("text",), names=SETTINGS), required=True),
        Field("v", "value", Pick(("number", "text", "duration", "time")), required=True),
        Field("how", "how", Choice(("fixed", "start")), default="fixed"),
    )
)
ARCHITECTURE = Record(
    (
        Field("preset", "preset", TEXT),
        Field("total", "params_total", NUMBER),
        Field("active", "params_active", NUMBER),
        Field("experts", "experts", _count("experts", "expert")),
        Field("top_k", "top_k", _count("experts")),
        Field("layers", "layers", _count("layers", "layer")),
        Field("vocab", "vocab", _count("tokens")),
        Field("context", "context", _count("tokens", "token")),
    )
)
TARGET = Record(
    (
        Field("m", "metric", Choice(get_args(MetricName)), required=True),
        Field("op", "op", Choice(get_args(Operator)), required=True),
        Field("v", "value", VALUE),
        Field("to", "relative_to", Pick(("text",), names=("baseline",))),
        Field("by", "relation", Choice(("difference", "ratio")), default="difference"),
        Field("name", "name", TEXT),
        Field("task", "task", TEXT),
        Field("data", "data", TEXT),
        Field("at", "stage", Index()),
    )
)
BUDGET = Record(
    (
        Field("trials", "max_trials", Pick(("number",), whole=True, units=TRIAL_UNITS, never=OTHER_WORK_UNITS)),
        Field("time", "wall_clock_s", Pick(("duration",))),
        Field("each", "per_trial_s", Pick(("duration",))),
        Field("gpu_hours", "gpu_hours", Pick(("number",), units=("gpu-hours", "gpu hours", "gpu-h"))),
        Field("tokens", "tokens", Pick(("number",), units=("tokens", "token"), never=WORK_UNITS)),
        Field("cost", "cost", Pick(("money",))),
        Field("until", "deadline.time", Pick(("time",))),
        Field("date", "deadline.date", Pick(("date",))),
    )
)
SPEC = Record(
    (
        Field("do", "intent", Choice(get_args(Intent)), required=True),
        Field("how", "methods", Many(Choice(METHODS), 4)),
        Field("model", "model", TEXT),
        Field("adapt", "adaptation", Choice(("full", "lora", "qlora"))),
        Field("data", "data", Many(DATA_REF, 8)),
        Field("steps", "pipeline", Many(STEP, 8)),
        Field("avoid", "avoid", Many(Pick(("text",), names=AVOIDABLE), 8)),
        Field("set", "settings", Many(SETTING, 12)),
        Field("arch", "architecture", ARCHITECTURE),
        Field(
            "reward",
            "reward",
            Record((Field("kind", "kind", Choice(get_args(RewardKind)), required=True), Field("ref", "ref", TEXT))),
        ),
        Field("want", "targets", Many(TARGET, 6)),
        Field("keep", "guardrails", Many(TARGET, 6)),
        Field("max", "budget", BUDGET),
        Field("gpus", "gpus", _count("gpus", "gpu", "cards", "h100s", "a100s", "h200s")),
        Field("nodes", "nodes", _count("nodes", "node", "machines")),
        Field(
            "when",
            "schedule",
            Record(
                (
                    Field("cron", "cron", Pick(("cron",)), required=True),
                    Field("until", "until", Pick(("time",))),
                    Field("tz", "timezone", Pick(("timezone",))),
                )
            ),
        ),
        Field(
            "out",
            "output",
            Record(
                (
                    Field("name", "name", TEXT),
                    Field("register", "register", Flag(), default=False),
                    Field("export", "export", TEXT),
                )
            ),
        ),
    )
)
