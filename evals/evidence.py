"""Is there evidence at all? Missing or implausible: UNVERIFIED. Changed within the study: TAMPERED (DESIGN §5)."""

import math

from nightsmith.evals.types import Decision, Evidence, MetricName, Verdict
from nightsmith.model.presets import Architecture

PEAK_FLOPS_PER_S = {"cpu": 1e13, "cuda": 1e16}
"""A bound that no device of the kind reaches: a CPU device is one core (AMX bf16 is near 4e12), a B200 does 1e16 in fp8
with sparsity. Deliberately generous: the check is for figures that nobody computed, not for fast code."""


def verify(evidence: Evidence, metric: MetricName) -> Verdict | None:
    """The verdict that the evidence forces, or None where it holds. Pure: digests were recomputed by the caller."""
    if reason := _changed(evidence):
        return Verdict(
            decision=Decision.TAMPERED, rule="evidence", metric=metric, reason=f"Job {evidence.key}: {reason}"
        )
    if reason := _missing(evidence, metric) or _implausible(evidence):
        return Verdict(
            decision=Decision.UNVERIFIED, rule="evidence", metric=metric, reason=f"Job {evidence.key}: {reason}"
        )
    return None


def flops_per_token(shape: Architecture) -> float:
    """Lower bound of the operations to train on one token: 6 for each weight that a token is multiplied with.

    Two per weight forward, four backward (Kaplan et al. 2020, arXiv:2001.08361 §2.1); attention scores, norms and the
    embedding look-up are left out.
    """
    hidden, head = shape.hidden_size, shape.nope_head_dim + shape.rope_head_dim
    query = hidden * shape.q_rank + shape.q_rank * shape.num_heads * head
    latent = hidden * (shape.kv_rank + shape.rope_head_dim)
    key_value = shape.kv_rank * shape.num_heads * (shape.nope_head_dim + shape.value_head_dim)
    attention = query + latent + key_value + shape.num_heads * shape.value_head_dim * hidden
    experts = 3 * hidden * shape.expert_size * (shape.top_k + 1) + hidden * shape.num_experts
    return 6.0 * (shape.num_layers * (attention + experts) + hidden * shape.vocab_size)


def _changed(evidence: Evidence) -> str:
    evaluation, suite = evidence.evaluation, evidence.suite
    if evaluation is not None and evaluation.suite_digest != suite.digest():
        return "it was evaluated on another suite than the study's."
    if evidence.data_found not in (None, suite.data_digest):
        return f"the evaluation data {suite.data} are not those that the study began with."
    if evaluation is not None and evidence.items_found not in (None, evaluation.items_digest):
        return "its item scores were changed after they were recorded."
    return ""


def _missing(evidence: Evidence, metric: MetricName) -> str:
    evaluation = evidence.evaluation
    if evidence.status != "FINISHED":
        return f"only a finished job is evidence; it ended {evidence.status.rstrip('.')}."
    if evaluation is None or evidence.items_found is None or evidence.data_found is None:
        return "its evaluation, the item scores or the evaluation data are absent."
    if evidence.checkpoint_digest is None or evidence.checkpoint_digest != evidence.checkpoint_found:
        return "the checkpoint with the recorded digest is absent."
    if evaluation.checkpoint_digest != evidence.checkpoint_digest:
        return "the evaluated weights are not those of its checkpoint."
    if not math.isfinite(evaluation.metrics.get(metric, math.nan)):
        return f"its evaluation has no finite {metric}."
    if not 0 < evaluation.num_items <= evidence.suite.max_items:
        return f"it scored {evaluation.num_items} items; the suite has 1 to {evidence.suite.max_items}."
    return ""


def _implausible(evidence: Evidence) -> str:
    if not evidence.trained:
        return ""
    if evidence.initial_digest is None or evidence.num_tokens == 0 or evidence.train_s == 0:
        return "its initial weights, training tokens or training time were not recorded."
    if evidence.initial_digest == evidence.checkpoint_digest:
        return "training did not change a single weight."
    peak = sum(PEAK_FLOPS_PER_S.get(device.partition(":")[0], 0.0) for device in evidence.devices)
    if evidence.flops_per_token * evidence.num_tokens > peak * evidence.train_s:
        return (
            f"{evidence.num_tokens} tokens in {evidence.train_s:.3g} s are more than {len(evidence.devices)} device(s) "
            "can compute."
        )
    return ""
