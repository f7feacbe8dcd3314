"""A model, a way to train and a set of GPUs, made into one report. Torch-free."""

from nightsmith.model.capacity.devices import Device
from nightsmith.model.capacity.memory import ADAPTER_BYTES, trained_params
from nightsmith.model.capacity.published import Published, rounds_to, value
from nightsmith.model.capacity.ranking import check_gpus, ranked
from nightsmith.model.capacity.report import (
    Cache,
    CapacityReport,
    Disk,
    Parameters,
    Publication,
    RankedPlan,
    Serving,
)
from nightsmith.model.capacity.shapes import ModelShape, Part
from nightsmith.model.capacity.speed import BASIS, forward_flops, train_flops
from nightsmith.model.capacity.subject import Subject
from nightsmith.model.capacity.verdict import Setup, verdict
from nightsmith.model.capacity.workload import Workload

CACHE_BYTES = 2
"""Of a cached value: bf16."""
SERVED = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 4.5 / 8}
"""Bytes of a weight in the forms that are served; NVFP4 with its scales."""


def plan_capacity(
    model: Subject, work: Workload, *, gpus: int, device: Device, gpus_per_node: int = 8
) -> CapacityReport:
    """Everything that is known of such a run before it starts. Raises BadLayout."""
    check_gpus(gpus, gpus_per_node)
    shape = model.shape
    plans = ranked(shape, gpus, work, device, gpus_per_node)
    return CapacityReport(
        name=model.name, title=model.title, family=shape.family, params=parameters(shape),
        published=_publication(shape, model.published) if model.published else None,
        trained_params=trained_params(shape, work), flops_per_token=train_flops(shape, work),
        forward_flops_per_token=forward_flops(shape, work.seq_len), kv_cache=cache(shape, work.seq_len),
        disk=disk(shape, work), workload=work, device=device, gpus=gpus, gpus_per_node=gpus_per_node,
        plans=tuple(plans), serving=tuple(_serving(shape, work.seq_len, gpus, device)),
        verdict=verdict(Setup(model.name, shape, work, gpus, device, gpus_per_node), plans), speed_basis=BASIS,
        notes=(*model.notes, *shape.unknown, *_notes(shape, gpus, work, plans)),
    )  # fmt: skip


def parameters(shape: ModelShape) -> Parameters:
    """The counts of a model."""
    vision = sum(weight.size for weight in shape.extras)
    active, lookup = shape.count_active(), 0 if shape.is_tied else shape.count("embedding")
    names: list[Part] = list(dict.fromkeys(weight.part for weight, _ in shape.weights()))
    return Parameters(
        total=shape.count() + vision, text=shape.count(), vision=vision, active=active,
        active_without_lookup=active - lookup, active_without_embeddings=active - shape.count("embedding", "head"),
        parts={name: shape.count(name) for name in names},
    )  # fmt: skip


def cache(shape: ModelShape, seq_len: int) -> Cache:
    """Keys and values of sequences of a length, and of the longest that the config names."""

    def size(length: int) -> int:
        spans = (span for kind in shape.pattern for span in shape.kinds[kind].cache)
        return sum(span.kept(length) for span in spans) * CACHE_BYTES

    whole = size(seq_len)
    return Cache(
        bytes_per_token=whole / seq_len, bytes_per_sequence=whole, longest=shape.max_len,
        bytes_per_longest=size(shape.max_len),
    )  # fmt: skip


def disk(shape: ModelShape, work: Workload) -> Disk:
    """What a run leaves on disk."""
    trained = trained_params(shape, work)
    is_full = work.method == "full"
    model = trained * (work.value_bytes if is_full else ADAPTER_BYTES)
    checkpoint = model + trained * (work.state_bytes if is_full else work.adapter_state_bytes)
    return Disk(model=model, checkpoint=checkpoint, kept=2 * checkpoint + model)


def _publication(shape: ModelShape, published: Published) -> Publication:
    counts = parameters(shape)
    active = {
        "all": counts.active, "without_lookup": counts.active_without_lookup,
        "without_embeddings": counts.active_without_embeddings,
    }[published.counting]  # fmt: skip
    return Publication(
        total=published.total, active=published.active, counting=published.counting,
        total_difference=counts.total / value(published.total) - 1,
        active_difference=active / value(published.active) - 1,
        total_rounds_to=rounds_to(counts.total, published.total),
        active_rounds_to=rounds_to(active, published.active), sources=published.sources,
    )  # fmt: skip


def _serving(shape: ModelShape, seq_len: int, gpus: int, device: Device) -> list[Serving]:
    per_token = cache(shape, seq_len).bytes_per_token / min(gpus, shape.kv_shards)
    rows: list[Serving] = []
    for precision, width in SERVED.items():
        weights = round(shape.count() * width / gpus)
        left = device.usable_bytes - weights
        tokens = int(left / per_token) if left > 0 and per_token else 0
        rows.append(Serving(precision=precision, weights_bytes_per_gpu=weights, cache_tokens=tokens))
    return rows


def _notes(shape: ModelShape, gpus: int, work: Workload, plans: list[RankedPlan]) -> list[str]:
    notes: list[str] = []
    if shape.max_len and work.seq_len > shape.max_len:
        notes.append(
            f"Sequences of {work.seq_len:,} tokens are longer than the {shape.max_len:,} that the config names."
        )
    if gpus > 1 and shape.has_ep and work.method != "qlora" and max(plan.ep for plan in plans) == 1:
        near = sorted({ep for ep in range(1, shape.num_experts + 1) if shape.num_experts % ep == 0})
        below, above = max(ep for ep in near if ep <= gpus), min((ep for ep in near if ep > gpus), default=0)
        notes.append(
            f"{gpus} GPUs share no divisor with the {shape.num_experts} experts, so every GPU gathers all experts of a "
            f"layer; {' or '.join(str(each) for each in (below, above) if each > 1)} GPUs would hold them apart."
        )
    if work.method == "qlora" and shape.num_experts:
        notes.append(
            "bitsandbytes does not quantise stacked experts by itself (its issue 1849); axolotl's quantize_moe_experts "
            "does. Not tried here."
        )
    if work.lora_experts and work.method == "lora":
        notes.append("Adapters on routed experts are counted as split LoRA: no merged copy of the experts is made.")
    return notes
