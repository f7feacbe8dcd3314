"""Evaluations inside jobs: after training, or of a checkpoint that another job left."""

import time
from pathlib import Path
from typing import Any

from nightsmith.evals.run import evaluate
from nightsmith.evals.suite import EvidenceAltered
from nightsmith.evals.types import EvaluateSpec, SuiteSpec
from nightsmith.model.files import weights_digest
from nightsmith.model.load import load, load_tokenizer
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.device import set_up_torch
from nightsmith.trainer.halted import require_promotable


def run(attempt: Attempt, spec: EvaluateSpec) -> None:
    """Evaluate a checkpoint on a suite.

    Raises:
        EvidenceAltered: the checkpoint is not the one with the spec's digest.
        NotPromotable: a monitor stopped its training.
        Ended: asked to end.
    """
    attempt.phase("build")
    checkpoint = Path(spec.checkpoint)
    require_promotable(checkpoint)
    device = set_up_torch(attempt)
    model: Any = load(checkpoint)
    model.to(device)
    if (found := weights_digest(checkpoint)) != spec.checkpoint_digest:
        raise EvidenceAltered(
            f"The weights of {checkpoint} have SHA-256 {found[:12]}, the spec names {spec.checkpoint_digest[:12]}: "
            "they were changed. Train again."
        )
    attempt.facts.checkpoint, attempt.facts.checkpoint_digest = checkpoint, found
    evaluate_model(attempt, model, spec.suite)


def evaluate_model(attempt: Attempt, model: Any, suite: SuiteSpec) -> None:
    """Evaluate the weights that `attempt.facts` names; the evaluation becomes a fact. Raises Ended when asked to."""
    attempt.phase("evaluate")
    facts, started = attempt.facts, time.monotonic()

    def on_batch(done: int, total: int) -> None:
        attempt.journal.write("evaluate", done=done, total=total)
        attempt.end_if_asked()

    assert facts.checkpoint is not None, "weights are evaluated only once they are on disk"
    assert facts.checkpoint_digest is not None
    facts.evaluation = evaluate(
        model,
        suite,
        attempt.run_dir,
        checkpoint_digest=facts.checkpoint_digest,
        tokenizer=load_tokenizer(facts.checkpoint),
        on_batch=on_batch,
    )
    facts.evaluate_s = time.monotonic() - started
