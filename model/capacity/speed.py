"""Operations per token, and how fast a plan may train by what others have measured. Torch-free."""

from collections import Counter

from pydantic import Field

from nightsmith.model.capacity.devices import Device
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan, unsharded
from nightsmith.model.capacity.workload import Workload
from nightsmith.record.digest import Contract

LOW_SHARE, HIGH_SHARE = 231 / 989, 334 / 989
"""Least and most of an H100's bf16 peak in the published runs below."""
BASIS = (
    "NVIDIA NeMo AutoModel's published runs of mixture-of-experts models on H100, sequences of 4096, balanced gates "
    "(2026-06): 231 to 334 TFLOP/s for each GPU, 23 to 34 % of the peak; the same share is assumed for other GPUs. The "
    "low figure also adds all communication of the plan, hidden behind nothing. Never measured here."
)


class Speed(Contract):
    """Training speed to expect, as a range."""

    low: float = Field(ge=0)
    """Tokens per second in all, at the worst published share of the peak with no communication hidden."""
    high: float = Field(ge=0)
    """Tokens per second in all, at the best published share with all of it hidden."""
    communication_s: float = Field(ge=0)
    """Seconds that one micro-batch spends in communication, where the links reach their rated speed."""


def forward_flops(shape: ModelShape, seq_len: int, tp: int = 1) -> float:
    """Operations of a forward pass per token: two for each active weight, and attention over half the sequence."""
    matrices = sum(
        shape.active(weight) * times / (tp if weight.tp_dim is not None else 1)
        for weight, times in shape.weights()
        if weight.is_matrix
    )
    tied = shape.vocab_size * shape.hidden_size / (tp if shape.has_tp else 1) if shape.is_tied else 0
    return 2 * (matrices + tied) + _attention_flops(shape, seq_len)


def train_flops(shape: ModelShape, work: Workload, tp: int = 1) -> float:
    """Operations per trained token, recomputation left out: thrice a forward pass; adapters spare weight gradients."""
    forward, attention = forward_flops(shape, work.seq_len, tp), _attention_flops(shape, work.seq_len)
    return 3 * forward if work.method == "full" else 2 * (forward - attention) + 3 * attention


def speed_of(shape: ModelShape, plan: ParallelPlan, work: Workload, device: Device, gpus_per_node: int) -> Speed:
    """The range of speeds to expect of a plan."""
    per_gpu = work.tokens * train_flops(shape, work, plan.tp) / plan.pp
    talk = communication_s(shape, plan, work, device, gpus_per_node)
    tokens = work.tokens * plan.fsdp
    slow = per_gpu / (device.peak_flops * LOW_SHARE) * plan.pp + talk
    fast = per_gpu / (device.peak_flops * HIGH_SHARE)
    return Speed(low=tokens / slow, high=tokens / fast, communication_s=talk)


def communication_s(shape: ModelShape, plan: ParallelPlan, work: Workload, device: Device, gpus_per_node: int) -> float:
    """Seconds of one micro-batch: weights gathered twice and gradients scattered (FSDP), tokens exchanged (EP, TP)."""

    def seconds(size: float, ranks: int, spread: int) -> float:
        link = device.node_bytes_per_s if spread <= gpus_per_node else device.network_bytes_per_s
        return size * (ranks - 1) / ranks / link

    passes, rounds = (3, 3) if work.method == "full" else (2, 3)
    hidden = work.tokens * shape.hidden_size * work.value_bytes
    experts = sum(unsharded([weight], plan) * times for weight, times in shape.weights() if weight.part == "experts")
    others = sum(unsharded([weight], plan) * times for weight, times in shape.weights() if weight.part != "experts")
    expert_ranks = plan.efsdp if plan.ep > 1 else plan.fsdp
    sparse = sum(times for weight, times in shape.weights() if weight.part == "router" and len(weight.shape) > 1)
    world = plan.fsdp * plan.tp
    return (
        seconds(others * work.value_bytes * passes, plan.fsdp, world)
        + seconds(experts * work.value_bytes * passes, expert_ranks, world)
        + seconds(2 * rounds * hidden / plan.tp * shape.top_k * sparse, plan.ep, plan.ep)
        + seconds(2 * 2 * rounds * hidden * shape.num_layers, plan.tp, plan.tp)
    )


def _attention_flops(shape: ModelShape, seq_len: int) -> float:
    kinds = Counter(shape.pattern).items()
    return sum(2 * span.mean(seq_len) * times for kind, times in kinds for span in shape.kinds[kind].scores)
