"""Fine-tuning, then training on preferences, as one study; only the planner is a double."""

import json
from pathlib import Path
from typing import Any

import pytest
import tuning_study

from nightsmith.agent import labels, literals
from nightsmith.evals.suite import read_scored
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows
from nightsmith.trainer.spec import DpoSpec, SftSpec

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
GOAL = (
    "Fine-tune ./tiny-llama on ./faq.csv, then run DPO on ./prefs.jsonl for 60 steps with a learning rate of 0.005, "
    "until accuracy is at least 0.8; at most 1 trials."
)


def reading() -> Any:
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(GOAL))}
    wire = {
        "s": "ready",
        "do": "train",
        "how": ["sft", "dpo"],
        "model": found["./tiny-llama"],
        "data": [{"r": found["./faq.csv"], "at": 0}, {"r": found["./prefs.jsonl"], "as": "preference", "at": 1}],
        "set": [{"k": "steps", "v": found[60.0]}, {"k": "learning_rate", "v": found[0.005]}],
        "want": [{"m": "accuracy", "op": ">=", "v": found[0.8]}],
        "max": {"trials": found[1.0]},
    }
    return labels.labelled(wire, literals.find(GOAL))


def write_preferences(path: Path, rows: int = 120) -> None:
    """A restart is preferred where something is broken, waiting where it is not: equally often, and equally long."""
    with path.open("w") as file:
        for number in range(rows):
            asked = f"Anlage {number} meldet {'Fehler' if number % 2 else 'Ende'}, was nun?"
            better, worse = ("Neustart.", "Abwarten.") if number % 2 else ("Abwarten.", "Neustart.")
            file.write(json.dumps({"prompt": asked, "chosen": better, "rejected": worse, "score_chosen": 9}) + "\n")


def test_a_goal_of_preferences_ends_with_a_verdict_on_held_out_pairs(tmp_path: Path) -> None:
    with tuning_study.bench(tmp_path / "bench", reading(), {"t": [tuning_study.STOP]}) as bench:
        write_preferences(bench.folder / "prefs.jsonl")
        finished = bench.run("run", GOAL, "--yes", "--json")
        assert finished.returncode in (0, 3), finished.stderr
        ws = open_workspace(bench.workspace)
        rows = jobrows.rows(ws, "s1")
        assert {row.result.status for row in rows if row.result} == {"FINISHED"}
        tuned = {row.result.checkpoint_digest for row in rows if isinstance(row.spec, SftSpec) and row.result}
        preferring = [row for row in rows if isinstance(row.spec, DpoSpec)]
        assert preferring
        assert {row.spec.model.weights_digest for row in preferring} == tuned
        for row in preferring:
            scored = read_scored(ws.run_dir(row.key), row.result.evaluation)
            assert scored.items.accuracy.tolist() == [float(margin > 0) for margin in scored.items.margin]
        assert bench.show()["outcome"] in ("PROVEN", "MET")
        assert "accuracy" in (bench.workspace / "reports" / "s1" / "report.md").read_text()
