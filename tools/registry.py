"""The tools: what a plan may call, with which arguments, and whether a call starts a job."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from nightsmith.tools.arguments import did_you_mean, validated
from nightsmith.tools.base import ToolArgs, ToolCall, ToolError
from nightsmith.tools.data.build import BuildDataset
from nightsmith.tools.data.inspect import InspectData
from nightsmith.tools.evaluation import Evaluate
from nightsmith.tools.finetuning import Sft
from nightsmith.tools.preference import Dpo
from nightsmith.tools.reinforcement import Grpo
from nightsmith.tools.training import Pretrain

Phase = Literal["reads", "writes data", "starts a job"]


class ReadMetrics(ToolArgs):
    """Read the metrics of a study's trials, as MLflow shows them."""

    study: str = Field(min_length=1)
    """Study id such as `s1`."""


@dataclass(frozen=True)
class Tool:
    """One entry of the registry."""

    name: str
    """How a plan calls it."""
    args: type[ToolArgs]
    """Its arguments; their docstring says what it does."""
    phase: Phase
    """What a call does: `reads` needs no approval, `starts a job` needs one, with a budget and a device."""

    @property
    def doc(self) -> str:
        """What it does, in one line."""
        return (self.args.__doc__ or "").strip().splitlines()[0]

    def schema(self) -> dict[str, Any]:
        """JSON schema of its arguments."""
        return self.args.model_json_schema()


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("inspect_data", InspectData, "reads"),
        Tool("build_dataset", BuildDataset, "writes data"),
        Tool("pretrain", Pretrain, "starts a job"),
        Tool("sft", Sft, "starts a job"),
        Tool("dpo", Dpo, "starts a job"),
        Tool("grpo", Grpo, "starts a job"),
        Tool("evaluate", Evaluate, "starts a job"),
        Tool("read_metrics", ReadMetrics, "reads"),
    )
}


def validate(call: ToolCall) -> ToolArgs:
    """The typed arguments of a call.

    Raises:
        ToolError: no such tool (with near names), or arguments that are missing, unknown or out of range.
    """
    tool = TOOLS.get(call.tool)
    if tool is None:
        raise ToolError(f"There is no tool {call.tool!r}.{did_you_mean(call.tool, TOOLS)} Tools: {', '.join(TOOLS)}.")
    return validated(tool.args, call.args, what=tool.name)


def schemas() -> dict[str, dict[str, Any]]:
    """Tool name -> JSON schema of its arguments, with every field described."""
    return {name: tool.schema() for name, tool in TOOLS.items()}
