"""The registry: closed schemas in which everything is described, and errors that mend a call."""

import subprocess
import sys
from typing import Any

import pytest

from nightsmith.tools.base import ToolArgs, ToolCall, ToolError
from nightsmith.tools.registry import TOOLS, schemas, validate
from nightsmith.tools.training import Pretrain


def refusal(tool: str, **args: Any) -> str:
    with pytest.raises(ToolError) as caught:
        validate(ToolCall(tool=tool, args=args))
    return str(caught.value)


def test_the_tools_are_these():
    assert list(TOOLS) == [
        "inspect_data",
        "build_dataset",
        "pretrain",
        "sft",
        "dpo",
        "grpo",
        "evaluate",
        "read_metrics",
    ]
    assert [tool.name for tool in TOOLS.values() if tool.phase == "starts a job"] == [
        "pretrain",
        "sft",
        "dpo",
        "grpo",
        "evaluate",
    ]


@pytest.mark.parametrize("name", TOOLS)
def test_every_field_and_tool_is_described_and_no_field_unknown_to_it_is_allowed(name: str):
    schema = schemas()[name]
    assert schema["additionalProperties"] is False
    assert TOOLS[name].doc.endswith(".")
    assert [field for field, about in schema["properties"].items() if not about.get("description")] == []


def test_a_valid_call_becomes_typed_arguments():
    args: ToolArgs = validate(ToolCall(tool="pretrain", args={"num_experts": 16, "schedule": "wsd"}))
    assert args == Pretrain(num_experts=16, schedule="wsd")


@pytest.mark.parametrize(
    ("tool", "args", "said"),
    [
        ("pretrian", {}, "There is no tool 'pretrian'. Did you mean 'pretrain'?"),
        ("pretrain", {"num_expert": 4}, "no argument 'num_expert'. Did you mean 'num_experts'"),
        ("pretrain", {"learning_rate": 3}, "'learning_rate' is 3: input should be less than or equal to 1 (Peak"),
        ("pretrain", {"schedule": "linear"}, "'schedule' is 'linear': input should be 'constant', 'cosine' or 'wsd'"),
        ("pretrain", {"num_steps": 1.5}, "'num_steps' is 1.5"),
        ("inspect_data", {}, "'source' is missing (Folder, file, glob"),
        (
            "build_dataset",
            {"sources": ["x"], "sample_rows": 1, "sample_share": 0.5},
            "exclude each other: set one of them.",
        ),
        ("evaluate", {"job": "../../etc"}, "'job' is '../../etc'"),
    ],
)
def test_a_bad_call_is_refused_in_a_sentence_that_mends_it(tool: str, args: dict[str, Any], said: str):
    assert said in refusal(tool, **args)


def test_every_mistake_of_a_call_is_named_at_once():
    message = refusal("pretrain", seed=-1, beta2=2.0)
    assert "'seed' is -1" in message
    assert "'beta2' is 2.0" in message


def test_importing_the_registry_loads_nothing_heavy():
    heavy = ("duckdb", "pyarrow", "torch", "mlflow", "reasoning_gym")
    code = f"import sys, nightsmith.tools.registry; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
