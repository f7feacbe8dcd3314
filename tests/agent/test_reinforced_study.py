"""Fine-tuning, then reinforcement learning, as one study; only the planner is a double."""

from pathlib import Path
from typing import Any

import pytest
import tuning_study

from nightsmith.agent import labels, literals
from nightsmith.evals.rewards import ExactMatchReward
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows
from nightsmith.trainer.spec import GrpoSpec, SftSpec

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
GOAL = (
    "Fine-tune ./tiny-llama on ./faq.csv, then train it by reinforcement learning for 12 steps with the right answer "
    "as reward, until exact match is at least 0.5; at most 1 trials."
)


def reading() -> Any:
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(GOAL))}
    wire = {
        "s": "ready",
        "do": "train",
        "how": ["sft", "grpo"],
        "model": found["./tiny-llama"],
        "data": [{"r": found["./faq.csv"]}],
        "set": [{"k": "steps", "v": found[12.0]}],
        "reward": {"kind": "exact"},
        "want": [{"m": "exact_match", "op": ">=", "v": found[0.5]}],
        "max": {"trials": found[1.0]},
    }
    return labels.labelled(wire, literals.find(GOAL))


def test_a_goal_of_two_stages_ends_with_rewards_on_the_fine_tuned_weights_and_one_report(tmp_path: Path) -> None:
    with tuning_study.bench(tmp_path / "bench", reading(), {"t": [tuning_study.STOP]}) as bench:
        finished = bench.run("run", GOAL, "--yes", "--json")
        assert finished.returncode in (0, 3), finished.stderr
        ws = open_workspace(bench.workspace)
        rows = jobrows.rows(ws, "s1")
        assert {row.result.status for row in rows if row.result} == {"FINISHED"}
        tuned = {row.result.checkpoint_digest for row in rows if isinstance(row.spec, SftSpec) and row.result}
        reinforced = [row.spec for row in rows if isinstance(row.spec, GrpoSpec)]
        assert reinforced
        assert {spec.model.weights_digest for spec in reinforced} == tuned
        assert all(spec.rewards == (ExactMatchReward(),) and spec.num_steps == 12 for spec in reinforced)
        assert (bench.workspace / "reports" / "s1" / "index.html").is_file()
