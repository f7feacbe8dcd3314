"""`nightsmith model plan` as a person or a script sees it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from nightsmith.agent.capacity_view import number
from nightsmith.agent.cli import app
from nightsmith.model.capacity.units import size
from nightsmith.record.errors import NightsmithError

RUN_AND_TELL_MODULES = """
import sys
from nightsmith.agent import cli
sys.argv = ["nightsmith", *{arguments!r}]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "transformers", "mlflow", "langgraph", "scipy", "optuna"}} & set(sys.modules)
print("HEAVY", sorted(heavy), file=sys.stderr)
"""


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["model", "plan", *arguments])


def answer(*arguments: str) -> dict:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_small4_on_eight_gpus_is_planned_without_torch():
    script = RUN_AND_TELL_MODULES.format(arguments=["model", "plan", "small4", "--gpus", "8", "--json"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stderr
    found = json.loads(done.stdout)
    assert found["params"]["total"] == pytest.approx(119.40e9, abs=0.05e9)
    assert found["params"]["active"] == pytest.approx(6.63e9, abs=0.05e9)
    assert found["params"]["active_without_embeddings"] == pytest.approx(5.56e9, abs=0.05e9)
    assert found["plans"][0]["parameter_bytes_per_rank"] == 2 * found["plans"][0]["params_per_rank"] == 29_743_206_656
    assert found["verdict"]["fits"] is False
    assert found["verdict"]["alternatives"]


def test_the_text_begins_with_the_verdict_and_keeps_to_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (("small4", "--gpus", "8"), ("qwen3-30b-a3b", "--gpus", "64", "--method", "lora", "--all")):
        done = invoke(*arguments)
        assert done.exit_code == 0
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert any(line.startswith(("Fits:", "Does not fit:")) for line in lines[:4])
    assert "What would fit" in invoke("small4", "--gpus", "8").stdout


def test_options_reach_the_plan():
    found = answer(
        "qwen3-30b-a3b", "--gpus", "16", "--gpu", "h200", "--method", "lora", "--optimizer", "adamw8bit",
        "--seq-len", "8192", "--micro-batch", "2", "--lora-rank", "8", "--lora-experts", "--gpus-per-node", "4",
    )  # fmt: skip
    assert found["workload"] == {
        "method": "lora", "optimizer": "adamw8bit", "precision": "bf16", "seq_len": 8192, "micro_batch": 2,
        "lora_rank": 8, "lora_experts": True, "recompute": True, "logits_chunk": 1024,
    }  # fmt: skip
    assert (found["gpus"], found["device"]["name"], found["gpus_per_node"]) == (16, "H200", 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("smal4", "--gpus", "8"), "Did you mean small4"),
        (("small4", "--gpus", "0"), "from 1 to"),
        (("small4", "--gpus", "12"), "use 8 or 16"),
        (("small4", "--gpus", "8", "--gpu", "A100"), "Known: H100, H200, B200"),
        (("small4", "--gpus", "8", "--method", "dpo"), "Known: full, lora, qlora"),
        (("small4", "--gpus", "8", "--optimizer", "sgd"), "Known: adamw, adamw8bit"),
        (("small4", "--gpus", "8", "--gpus-per-node", "0"), "1 or more"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_can(arguments, said):
    error = invoke(*arguments).exception
    assert isinstance(error, NightsmithError)
    assert said in str(error)


def test_sizes_and_counts_are_readable():
    assert [size(n) for n in (0, 512, 1536, 29_743_206_656, 3 * 2**41)] == [
        "0 B",
        "512 B",
        "1.5 KiB",
        "27.7 GiB",
        "6,144.0 GiB",
    ]
    assert [number(n) for n in (12, 1_500, 119_401_298_944, 1.6e12)] == ["12", "1.50 k", "119.40 B", "1.60 T"]
