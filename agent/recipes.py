"""Training calls, whichever their tool: arguments, settings, and what a change makes of them."""

from collections.abc import Mapping

from nightsmith.tools import finetuning, registry, training
from nightsmith.tools.base import ToolCall
from nightsmith.tools.finetuning import Tuning
from nightsmith.tools.training import Pretrain, Value

Training = Pretrain | Tuning


def arguments(call: ToolCall) -> Training:
    """The typed arguments of a training call."""
    args = registry.validate(call)
    assert isinstance(args, Pretrain | Tuning)
    return args


def settings(args: Training) -> dict[str, Value]:
    """Every setting with the value that is really used."""
    return finetuning.recipe(args) if isinstance(args, Tuning) else training.recipe(args)


def changed(stages: tuple[ToolCall, ...], change: Mapping[str, Value]) -> tuple[ToolCall, ...]:
    """The stages of a run with some settings of the last one changed. Raises ToolError."""
    args = arguments(stages[-1])
    after = finetuning.apply_change(args, change) if isinstance(args, Tuning) else training.apply_change(args, change)
    call = ToolCall(tool=stages[-1].tool, args=after.model_dump(mode="json", exclude_none=True))
    return (*stages[:-1], call)
