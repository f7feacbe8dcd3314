"""The methods that train a model that exists: what each takes, what its trials may change. Planned: `planning_sft`."""

from dataclasses import dataclass
from typing import Literal

from nightsmith.agent.goal import DataRole
from nightsmith.agent.plan import Tunable
from nightsmith.tools.finetuning import Sft, Tuning, settings_of
from nightsmith.tools.preference import Dpo
from nightsmith.tools.reinforcement import Grpo

Rows = Literal["text", "chat", "preference"]
"""As what data are read."""
SPACE: tuple[Tunable, ...] = (
    Tunable(name="batch_size", kind="choice", choices=(2, 4, 8, 16, 32)),
    Tunable(name="warmup_share", kind="float", low=0.0, high=0.3),
    Tunable(name="schedule", kind="choice", choices=("constant", "cosine", "linear")),
    Tunable(name="lora_rank", kind="choice", choices=(4, 8, 16, 32, 64)),
    Tunable(name="weight_decay", kind="float", low=0.0, high=0.1),
)
"""What trials of every method may change, beside the learning rate. Each keeps the number of rows that are trained."""


@dataclass(frozen=True)
class Method:
    """One method."""

    name: Literal["sft", "dpo", "grpo"]
    """Of the goal's method and of its tool."""
    noun: str
    """As people call it."""
    args: type[Tuning]
    """Arguments of its tool."""
    rows: Rows
    """As what its data are read."""
    roles: tuple[DataRole, ...]
    """Roles of the data that it trains on: of the first role that has some that it can use."""
    rates: dict[str, tuple[float, float]]
    """Adaptation -> range of the learning rate."""
    small_rate: float
    """Peak learning rate of models so small that they are trained whole: of `sft` near that of their pre-training; of
    the others what moves tiny models without breaking what they answer."""
    own_space: tuple[Tunable, ...] = ()
    """What its trials alone may change."""

    @property
    def settings(self) -> tuple[str, ...]:
        """What a goal may set."""
        return (*settings_of(self.args), "epochs")


_ALL = (
    Method(
        "sft", "fine-tuning", Sft, "chat", ("train", "preference"),  # of pairs it takes the chosen answers
        {"full": (5e-6, 5e-3), "lora": (5e-5, 5e-3)}, 5e-4,
    ),
    Method(
        "dpo", "training on preferences", Dpo, "preference", ("preference", "train"),
        {"full": (5e-7, 1e-3), "lora": (5e-6, 1e-3)}, 1e-4,
        (Tunable(name="beta", kind="float", low=0.02, high=1.0, log=True),),
    ),
    Method(
        "grpo", "reinforcement learning", Grpo, "chat", ("train",),
        {"full": (1e-6, 1e-3), "lora": (1e-5, 1e-3)}, 1e-4,
        (
            Tunable(name="num_generations", kind="choice", choices=(4, 8, 16)),
            Tunable(name="temperature", kind="float", low=0.7, high=1.2),
        ),
    ),
)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
ANY_SETTINGS = tuple(dict.fromkeys(name for method in _ALL for name in method.settings))
"""Settings that a stage after pre-training may have."""


def rows_of(method: str) -> Rows:
    """As what a method reads its data; pre-training reads texts."""
    return METHODS[method].rows if method in METHODS else "text"


def roles_of(method: str) -> tuple[DataRole, ...]:
    """Roles of the data that a method trains on."""
    return METHODS[method].roles if method in METHODS else ("train",)
