"""Pre-training, fine-tuning and reinforcement learning as one study on generated sums; only the planner is a double."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_study

from nightsmith.agent import history, labels, literals
from nightsmith.agent.stage_words import stage_rows
from nightsmith.evals.rewards import ReasoningGymReward
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows
from nightsmith.trainer.spec import GrpoSpec, PostTraining

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
SUMS = "reasoning-gym:basic_arithmetic?allow_parentheses=false&max_digits=1&max_terms=3&min_terms=3&operators=+"
GOAL = (
    f"Pre-train a model from scratch on {SUMS}, with 300 rows, then fine-tune it on them, then "
    "train it by reinforcement learning for 6 steps, until exact match is at least 0.5; at most 1 trials."
)
STAGES = ("pretrain", "sft", "grpo")


def reading() -> Any:
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(GOAL))}
    wire = {
        "s": "ready",
        "do": "train",
        "how": list(STAGES),
        "data": [{"r": found[SUMS]}],
        "steps": [{"do": "sample", "n": found[300.0], "u": "rows"}],
        "set": [{"k": "steps", "v": found[6.0]}],
        "want": [{"m": "exact_match", "op": ">=", "v": found[0.5]}],
        "max": {"trials": found[1.0]},
    }
    return labels.labelled(wire, literals.find(GOAL))


def test_a_goal_of_three_stages_ends_with_one_report_that_leads_back_to_random_weights(tmp_path: Path) -> None:
    with tiny_study.bench(tmp_path / "bench", reading(), {"t": [tiny_study.STOP]}) as bench:
        finished = bench.run("run", GOAL, "--yes", "--json")
        assert finished.returncode in (0, 3), finished.stderr + finished.stdout
        ws = open_workspace(bench.workspace)
        rows = jobrows.rows(ws, "s1")
        assert {row.result.status for row in rows if row.result} == {"FINISHED"}
        kept = {
            kind: {row.result.checkpoint_digest for row in rows if row.spec.kind == kind and row.result}
            for kind in STAGES
        }
        for before, after in pairwise(STAGES):
            specs = [row.spec for row in rows if row.spec.kind == after and isinstance(row.spec, PostTraining)]
            assert {spec.model.weights_digest for spec in specs} == kept[before]
        rewards = [reward for row in rows if isinstance(row.spec, GrpoSpec) for reward in row.spec.rewards]
        assert rewards
        assert all(isinstance(reward, ReasoningGymReward) for reward in rewards)
        told = stage_rows(history.load(ws, "s1"))
        assert [row.method for row in told] == ["pre-training", "fine-tuning", "training by rewards"] * 3
        assert {row.began for row in told[::3]} == {"random weights"}
        page = (bench.workspace / "reports" / "s1" / "index.html").read_text()
        assert all(row.job in page and row.left in page for row in told)
