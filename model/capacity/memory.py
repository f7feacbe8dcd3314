"""Memory of a run on its fullest GPU, part by part, in closed form. Torch-free.

What is counted to the byte and what is estimated is in docs/capacity.md.
"""

from pydantic import Field

from nightsmith.model.capacity.shapes import MATRIX_PARTS, Layer, ModelShape, Weight
from nightsmith.model.capacity.sharding import (
    ParallelPlan,
    fullest_rank,
    layers_of,
    local_weights,
    stage_of,
    unsharded,
)
from nightsmith.model.capacity.workload import Workload
from nightsmith.record.digest import Contract

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in 4-bit NormalFloat with blocks of 64 and quantised constants (QLoRA, arXiv:2305.14314)."""
ADAPTER_BYTES = 4
"""Adapters are kept in float32, and so are their gradients."""
SAVED_SHARE = 1.35
"""Values that autograd keeps of a layer for each input or output of the matrices that a token passes: 1.2 to 1.5 was
measured on small models of families with fused attention (float32 copies in norms and rotary positions included)."""


class Memory(Contract):
    """Bytes on the fullest GPU, or in the memory of a machine without one."""

    weights: int = Field(ge=0)
    """The rank's share of the model, adapters included."""
    gradients: int = Field(ge=0)
    """Of what is trained."""
    optimizer: int = Field(ge=0)
    """States of the optimizer, and master weights."""
    gathered: int = Field(ge=0)
    """Weights and gradients that FSDP holds whole for a while: two layers, the head, one layer's gradients."""
    activations: int = Field(ge=0)
    """What the backward pass needs."""
    logits: int = Field(ge=0)
    """Scores of the vocabulary and their gradients."""
    total: int = Field(ge=0)
    """All of it."""


def memory_of(shape: ModelShape, plan: ParallelPlan, work: Workload) -> Memory:
    """Memory of a run on the rank with the most parameters."""
    rank = fullest_rank(shape, plan)
    weights = trained = 0.0
    adapters = 0.0
    for weight, values, count in local_weights(shape, plan, rank):
        weights += values * count * weight_bytes(weight, work)
        trained += values * count if work.method == "full" else 0
        adapters += adapter_size(weight, work) * values / weight.size * count
    parts = {
        "weights": weights + adapters * ADAPTER_BYTES,
        "gradients": trained * work.value_bytes + adapters * ADAPTER_BYTES,
        "optimizer": trained * work.state_bytes + adapters * work.adapter_state_bytes,
        "gathered": _gathered(shape, plan, work),
        "activations": _activations(shape, layers_of(shape, plan, stage_of(plan, rank)), work),
        "logits": logits_bytes(shape, work),
    }
    counted = {name: round(size) for name, size in parts.items()}
    return Memory(**counted, total=sum(counted.values()))


def weight_bytes(weight: Weight, work: Workload) -> float:
    """Bytes for each value of a weight at rest."""
    is_quantised = work.method == "qlora" and weight.is_matrix and weight.part in MATRIX_PARTS
    return NF4_BYTES if is_quantised else work.value_bytes


def adapter_size(weight: Weight, work: Workload) -> int:
    """Values of a weight's adapter: rank times inputs plus outputs, for each expert; 0 where it has none."""
    if work.method == "full" or not weight.is_matrix or weight.part not in MATRIX_PARTS:
        return 0
    if weight.part == "experts" and not work.lora_experts:
        return 0
    return work.lora_rank * weight.in_and_out * weight.stacked


def trained_params(shape: ModelShape, work: Workload) -> int:
    """Parameters that the optimizer changes."""
    if work.method == "full":
        return shape.count()
    return sum(adapter_size(weight, work) * times for weight, times in shape.weights())


def saved_values(shape: ModelShape, layer: Layer) -> float:
    """Values for each token that autograd keeps of one layer. Measured on small models, see docs/capacity.md."""
    matrices = [weight for weight in layer.weights if weight.is_matrix]
    passed = sum(weight.in_and_out * shape.passed(weight) for weight in matrices)
    return SAVED_SHARE * passed


def logits_bytes(shape: ModelShape, work: Workload) -> int:
    """Scores in the model's numbers, as float32, and their gradient."""
    tokens = work.tokens if work.logits_chunk is None else min(work.tokens, work.logits_chunk)
    return tokens * shape.vocab_size * (work.value_bytes + 4 + 4)


def _activations(shape: ModelShape, pattern: tuple[int, ...], work: Workload) -> float:
    saved = {kind: saved_values(shape, shape.kinds[kind]) for kind in set(pattern)}
    residual = shape.hidden_size * shape.residual_streams
    if work.recompute:
        values = residual * len(pattern) + max(saved.values(), default=0.0)
    else:
        values = sum(saved[kind] for kind in pattern)
    return work.tokens * values * work.value_bytes


def _gathered(shape: ModelShape, plan: ParallelPlan, work: Workload) -> float:
    """FSDP2 gathers a layer ahead of the one that computes; the head stays whole; gradients leave layer by layer."""
    layer = max((unsharded(kind, plan) for kind in shape.kinds), default=0)
    head = unsharded([weight for weight in shape.outer if weight.part in ("head", "norm")], plan)
    embedding = unsharded([weight for weight in shape.outer if weight.part == "embedding"], plan)
    whole = head + max(2 * layer, embedding)
    gradients = max(layer, head, embedding) if work.method == "full" else 0
    if work.method != "qlora":
        return (whole + gradients) * work.value_bytes
    matrices = [weight.size for kind in shape.kinds for weight in kind.weights if weight.part in MATRIX_PARTS]
    return head * work.value_bytes + 2 * layer * NF4_BYTES + max(matrices, default=0) * work.value_bytes
