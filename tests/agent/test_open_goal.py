"""A goal without a threshold uses its whole budget: it goes on after a confirmation, and opens the seal last."""

import json

import pytest
import tiny_study
from tiny_study import LOWER, RAISE

from nightsmith.agent import labels, literals

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
GOAL = (
    "Pre-train a mixture-of-experts model from scratch on ./corpus with 40 steps and lower the bits per byte as far as "
    "you can; at most 3 trials."
)
CONFIRM = {"mv": "confirm"}


def reading():
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(GOAL))}
    wire = {
        "s": "ready",
        "do": "train",
        "how": ["pretrain"],
        "data": [{"r": found["./corpus"]}],
        "set": [{"k": "steps", "v": found[40.0]}],
        "want": [{"m": "bits_per_byte", "op": "min"}],
        "max": {"trials": found[3.0]},
    }
    return labels.labelled(wire, literals.find(GOAL))


def test_after_a_confirmation_it_tries_on_and_the_seal_is_opened_for_the_best_at_the_end(tmp_path):
    with tiny_study.bench(tmp_path, reading(), {"t": [RAISE, LOWER]}, {"t": [CONFIRM]}, {"t": [RAISE]}) as bench:
        ended = bench.run("run", GOAL, "--yes", "--json")
        told = [json.loads(line) for line in ended.stdout.splitlines()]
        kinds = [event["kind"] for event in told]
        last_trial = max(at for at, event in enumerate(told) if event["kind"] == "trial_proposed")
        assert (ended.returncode, bench.show()["outcome"]) == (0, "IMPROVED"), ended.stderr
        assert kinds.index("confirmation") < last_trial < kinds.index("unsealed")
        assert kinds.count("trial_proposed") == 3
        assert "On the sealed split: bits per byte" in bench.run("show", "s1").stdout
