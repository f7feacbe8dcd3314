"""The tool `grpo`: which reward is meant, and the job that its arguments become."""

from pathlib import Path
from typing import Any

import pytest

from nightsmith.evals.rewards import ReasoningGymReward
from nightsmith.evals.scoring import Sample, scorer
from nightsmith.model.chat_rows import parse_messages
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools import registry
from nightsmith.tools.base import ToolCall, ToolError
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.manifest import Manifest, read_manifest
from nightsmith.tools.finetuning import apply_change, recipe
from nightsmith.tools.reinforcement import Grpo, grpo_spec, reward_of
from nightsmith.trainer.spec import ModelRef
from nightsmith.trainer.training_file import read_columns

GYM = "reasoning-gym:basic_arithmetic?max_terms=2&max_digits=1&operators=+"
MODEL = ModelRef(path="/m", weights_digest="d")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / ".nightsmith")


def build(ws: Workspace, source: str, rows: Any = "chat") -> Manifest:
    manifest = build_dataset(BuildDataset(sources=(source,), rows=rows, num_generated=400, seed=7), ws)
    return read_manifest(ws, manifest.dataset)


def test_rows_of_a_generator_are_scored_by_it_and_each_published_row_is_found_again(ws: Workspace) -> None:
    manifest = build(ws, GYM)
    reward = reward_of(Grpo(), manifest)
    assert isinstance(reward, ReasoningGymReward)
    assert (reward.task, reward.seed, reward.num_generated) == ("basic_arithmetic", 7, 400)
    split = manifest.split("train")
    table = read_columns(str(manifest.path(ws, "train")), split.data_digest, ("row_id", "messages", "source"))
    samples = []
    for row_id, text, source in zip(*table.values(), strict=True):
        *prompt, answer = parse_messages(text, row_id)
        samples.append(Sample(row_id, source, tuple(prompt), answer["content"], answer["content"]))
    with scorer(reward) as score:
        assert score(samples) == [1.0] * split.rows


def test_a_table_is_scored_by_exact_match_and_a_file_by_its_digest(ws: Workspace, tmp_path: Path) -> None:
    table, file = tmp_path / "faq.csv", tmp_path / "reward.py"
    table.write_text("question,answer\n" + "\n".join(f"Frage {i}?,Antwort {i}" for i in range(60)))
    file.write_text("def reward(prompt, completion, reference):\n    return 1.0\n")
    manifest = build(ws, str(table))
    spec = grpo_spec(Grpo(num_generations=4), manifest, ws, model=MODEL, suite=None)
    assert [reward.kind for reward in spec.rewards] == ["exact_match"]
    assert (spec.num_generations, spec.learning_rate, spec.schedule) == (4, 1e-4, "constant")
    assert 9 <= spec.max_completion_length < spec.max_len
    command = reward_of(Grpo(reward="command", reward_file=str(file)), manifest)
    assert (command.kind, len(command.file_digest)) == ("command", 64)
    with pytest.raises(ToolError, match="not all made by one generator"):
        reward_of(Grpo(reward="generator"), manifest)
    with pytest.raises(ToolError, match="cannot be read"):
        reward_of(Grpo(reward="command", reward_file=str(tmp_path / "none.py")), manifest)


def test_texts_have_no_prompts_and_a_command_without_a_file_is_refused(ws: Workspace) -> None:
    with pytest.raises(ToolError, match="no prompts to answer"):
        grpo_spec(Grpo(), build(ws, GYM, "text"), ws, model=MODEL, suite=None)
    with pytest.raises(ToolError, match="needs reward_file"):
        registry.validate(ToolCall(tool="grpo", args={"reward": "command"}))


def test_a_change_keeps_the_prompts_that_are_drawn_and_what_says_what_is_trained_cannot_be_changed() -> None:
    changed = apply_change(Grpo(batch_size=32, num_steps=100), {"batch_size": 16})
    assert (changed.batch_size, changed.num_steps) == (16, 200)
    assert not {"reward", "reward_file", "dataset", "model"} & recipe(changed).keys()
    assert recipe(changed)["num_generations"] == 8
    with pytest.raises(ToolError, match="no setting"):
        apply_change(Grpo(), {"reward": "exact_match"})
