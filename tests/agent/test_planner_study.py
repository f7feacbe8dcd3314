"""The study that trains the planner's adapter, small: corpus, goal, LoRA, verdict, report, GGUF adapter; all real."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader
from pinned_wheel import own_cache

from nightsmith.agent import prompting
from nightsmith.model import catalogue
from nightsmith.model.chat_rows import ChatFormat
from nightsmith.model.load import load_tokenizer
from nightsmith.model.planner_server import ensure, stop
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows, tracking
from nightsmith.trainer.spec import SftSpec

EXAMPLE = Path(__file__).parents[2] / "examples" / "planner"
GOAL = (EXAMPLE / "goal_small.txt").read_text().strip().replace("60 steps", "6 steps")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def nightsmith(folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"NIGHTSMITH_DEVICES": "cpu:0,cpu:1"}
    command = [sys.executable, "-m", "nightsmith.agent.cli", *args, "--workspace", str(folder / ".nightsmith")]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A folder with the corpus and the study that has ended in it, and how `nightsmith run` ended."""
    folder = tmp_path_factory.mktemp("planner-study")
    corpus = ["--only", "sayings", "--sayings", "60", "--held", "8"]
    subprocess.run([sys.executable, str(EXAMPLE / "corpus.py"), str(folder), *corpus], check=True, capture_output=True)
    base = catalogue.resolve(catalogue.BUILT_IN, cwd=folder)
    shutil.copy(EXAMPLE / "nightsmith.toml", folder)
    with own_cache(folder):
        (folder / "cache" / base.name).symlink_to(base)
        yield folder, nightsmith(folder, "run", GOAL, "--yes", "--json")
        stop(ensure())


def rows(folder: Path, name: str) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_the_goal_is_read_trained_judged_and_reported_by_the_product_itself(ended):
    folder, run = ended
    assert run.returncode in (0, 3), run.stderr
    ws = open_workspace(folder / ".nightsmith")
    jobs = {row.role: row for row in jobrows.rows(ws, "s1")}
    assert isinstance(spec := jobs["trial"].spec, SftSpec)
    assert (spec.adaptation, spec.lora_rank, spec.lora_alpha, spec.num_steps, spec.rows) == ("lora", 32, 64, 6, "chat")
    assert (spec.backend, spec.first_layer, spec.lead_tokens, spec.lead_weight) == ("fused", 6, 4, 4.5)
    assert jobs["baseline"].result.evaluation.metrics["exact_match"] == 0
    assert jobs["trial"].result.metrics["train/loss"] < 3
    assert tracking.differences(ws, "s1") == []
    report = (folder / ".nightsmith/reports/s1/index.html").read_text()
    assert "test.jsonl" in report
    assert "Answers before and after" in report


def test_what_is_trained_is_what_the_planner_is_asked_token_by_token(ended):
    folder, _ = ended
    tokenizer = load_tokenizer(catalogue.resolve(catalogue.BUILT_IN, cwd=folder))
    found = rows(folder, "train")
    for messages, row in zip(found, ChatFormat(tokenizer).last_answers(found), strict=True):
        assert tokenizer.decode(row.ids[: row.answer_start]) == prompting.chat_text(messages[:-1])
        assert tokenizer.decode(row.ids[row.answer_start :]) == messages[-1]["content"] + "<|im_end|>"


def test_its_adapter_is_written_for_the_engine_that_serves_the_planner(ended):
    folder, _ = ended
    exported = nightsmith(folder, "export", "s1", "--trial", "1", "--to", "adapter", "--format", "gguf-lora")
    assert exported.returncode == 0, exported.stderr
    tensors = GGUFReader(folder / "adapter/adapter.gguf").tensors
    assert len(tensors) == 24 * 7 * 2
    assert "--lora" in (folder / "adapter/README.md").read_text()
    with own_cache(folder / "engine"):
        stop(ensure(folder / "adapter/adapter.gguf"))
