"""Evidence: what is missing or implausible is UNVERIFIED, what was changed is TAMPERED."""

import pytest
from simulated_runs import SUITE

from nightsmith.evals.evidence import flops_per_token, verify
from nightsmith.evals.types import Decision, Evaluation, Evidence
from nightsmith.model.presets import PRESETS

EVALUATION = Evaluation(
    checkpoint_digest="c" * 64,
    suite_digest=SUITE.digest(),
    items="items.parquet",
    items_digest="i" * 64,
    metrics={"bits_per_byte": 3.5},
    num_items=256,
    wall_s=2,
)
SOUND = Evidence(
    key="0123456789ab",
    status="FINISHED",
    suite=SUITE,
    data_found=SUITE.data_digest,
    evaluation=EVALUATION,
    items_found="i" * 64,
    checkpoint_digest="c" * 64,
    checkpoint_found="c" * 64,
    initial_digest="0" * 64,
    num_tokens=65_536,
    train_s=3,
    flops_per_token=flops_per_token(PRESETS["nano"]),
    devices=("cpu:0",),
)


def evaluation(**changes) -> Evaluation:
    return EVALUATION.model_copy(update=changes)


def test_sound_evidence_passes():
    assert verify(SOUND, "bits_per_byte") is None


def test_an_evaluation_alone_needs_no_training_figures():
    alone = {"trained": False, "initial_digest": None, "num_tokens": 0, "train_s": 0.0}
    assert verify(SOUND.model_copy(update=alone), "bits_per_byte") is None


@pytest.mark.parametrize(
    ("changes", "decision", "reason"),
    [
        ({"status": "OUT_OF_MEMORY"}, Decision.UNVERIFIED, "OUT_OF_MEMORY"),
        ({"evaluation": None}, Decision.UNVERIFIED, "absent"),
        ({"items_found": None}, Decision.UNVERIFIED, "absent"),
        ({"data_found": None}, Decision.UNVERIFIED, "absent"),
        ({"checkpoint_digest": None}, Decision.UNVERIFIED, "absent"),
        ({"checkpoint_found": None}, Decision.UNVERIFIED, "absent"),
        ({"checkpoint_found": "e" * 64}, Decision.UNVERIFIED, "absent"),
        ({"evaluation": evaluation(checkpoint_digest="e" * 64)}, Decision.UNVERIFIED, "evaluated weights"),
        ({"evaluation": evaluation(metrics={"bits_per_byte": float("nan")})}, Decision.UNVERIFIED, "finite"),
        ({"evaluation": evaluation(metrics={})}, Decision.UNVERIFIED, "finite"),
        ({"evaluation": evaluation(num_items=257)}, Decision.UNVERIFIED, "items"),
        ({"evaluation": evaluation(num_items=0)}, Decision.UNVERIFIED, "items"),
        ({"initial_digest": "c" * 64}, Decision.UNVERIFIED, "single weight"),
        ({"initial_digest": None}, Decision.UNVERIFIED, "not recorded"),
        ({"train_s": 95e-6}, Decision.UNVERIFIED, "more than"),
        ({"devices": ()}, Decision.UNVERIFIED, "more than"),
        ({"evaluation": evaluation(suite_digest="e" * 64)}, Decision.TAMPERED, "another suite"),
        ({"data_found": "e" * 64}, Decision.TAMPERED, "not those"),
        ({"items_found": "e" * 64}, Decision.TAMPERED, "changed"),
    ],
)
def test_each_fault_of_the_evidence_is_named(changes, decision, reason):
    verdict = verify(SOUND.model_copy(update=changes), "bits_per_byte")
    assert (verdict.decision, verdict.rule) == (decision, "evidence")
    assert reason in verdict.reason
    assert SOUND.key in verdict.reason


def test_the_operations_of_a_preset_are_bounded_by_its_active_parameters():
    assert 6 * 0.04e6 < flops_per_token(PRESETS["nano"]) < 6 * 0.085e6
    assert 6 * 5.5e9 < flops_per_token(PRESETS["small4"]) < 6 * 6.7e9
