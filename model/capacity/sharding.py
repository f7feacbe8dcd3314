"""Parallel plans and the parameters that each leaves on a rank, to the value. Torch-free.

The layout is that of transformers 5.23's DistributedConfig: tensor parallelism splits what the family's plan names;
expert parallelism splits the experts by expert, and FSDP2 splits what is left of every weight along its first
dimension in chunks of equal size, the last ones smaller or empty (torch.chunk). With expert parallelism the experts
are split among the `fsdp * tp / ep` ranks that hold the same ones.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

from pydantic import Field

from nightsmith.model.capacity.shapes import Layer, ModelShape, Weight
from nightsmith.record.digest import Contract


class ParallelPlan(Contract):
    """How a model is laid over GPUs; field names are those of transformers' DistributedConfig without `_size`."""

    fsdp: int = Field(default=1, ge=1)
    """Ranks that split the weights and see different data."""
    ep: int = Field(default=1, ge=1)
    """Ranks that hold different experts; taken from the same ranks as `fsdp` and `tp`."""
    tp: int = Field(default=1, ge=1)
    """Ranks that split single matrices and see the same data."""
    pp: int = Field(default=1, ge=1)
    """Stages of layers."""
    dp: int = Field(default=1, ge=1)
    """Ranks that hold every weight, but with `ep` the experts of others, and see different data; instead of `fsdp`."""

    @property
    def world(self) -> int:
        """GPUs."""
        return self.dp * self.fsdp * self.tp * self.pp

    @property
    def shares(self) -> int:
        """Parts into which a batch is split."""
        return self.dp * self.fsdp

    @property
    def efsdp(self) -> int:
        """Ranks that hold the same experts and split them."""
        return self.shares * self.tp // self.ep


def plans(shape: ModelShape, gpus: int) -> list[ParallelPlan]:
    """Every layout of a model over so many GPUs that transformers accepts; those with `dp` are not among them."""
    found = (
        ParallelPlan(fsdp=gpus // tp // pp, ep=ep, tp=tp, pp=pp)
        for pp in _divisors(gpus)
        for tp in _divisors(gpus // pp)
        for ep in _divisors(gpus // pp)
    )
    return [plan for plan in found if why_not(shape, plan) is None]


def why_not(shape: ModelShape, plan: ParallelPlan) -> str | None:
    """What forbids a layout; None where nothing does."""
    if plan.dp > 1 and (plan.world > plan.dp or plan.ep not in (1, plan.dp)):
        return "with dp, fsdp, tp and pp must be 1, and ep must be 1 or the same as dp"
    if plan.ep > 1:
        if not shape.has_ep:
            return f"{shape.family} has no expert-parallel plan in transformers"
        if shape.num_experts % plan.ep:
            return f"{shape.num_experts} experts cannot be split evenly among {plan.ep} ranks"
        if plan.ep % plan.tp or (plan.shares * plan.tp) % plan.ep:
            return "ep must be a multiple of tp and divide fsdp * tp"
        if plan.pp > 1:
            return "expert and pipeline parallelism cannot be combined"
    if plan.tp > 1 and plan.pp > 1:
        return "tensor and pipeline parallelism cannot be combined"
    if plan.tp > 1 and shape.is_tied:
        return "tensor parallelism in transformers does not take a head that is the embedding itself"
    if plan.tp > 1 and not shape.has_tp:
        return f"{shape.family} has no tensor-parallel plan in transformers"
    if plan.tp > 1 and (indivisible := _indivisible(shape, plan.tp, uneven_words=plan.fsdp == 1)):
        return f"{indivisible.name} {indivisible.shape} cannot be split evenly among {plan.tp} ranks"
    if plan.pp > 1 and (not shape.has_pp or plan.pp > shape.num_layers):
        return f"{shape.num_layers} layers of {shape.family} cannot be split into {plan.pp} stages"
    if plan.pp > 1 and plan.fsdp > 1:
        return "FSDP and pipeline parallelism cannot be combined"
    return None


@lru_cache(maxsize=256)
def _indivisible(shape: ModelShape, tp: int, *, uneven_words: bool) -> Weight | None:
    """A weight that tensor parallelism cannot split; a vocabulary may be split unevenly where FSDP does not split it
    again.
    """
    whole = ("embedding", "head") if uneven_words else ()
    kinds = (weight for kind in shape.kinds for weight in kind.weights)
    split = (weight for weight in (*shape.outer, *kinds) if weight.tp_dim is not None and weight.part not in whole)
    heads = shape.kv_shards > 1 and shape.kv_shards % tp
    return next(
        (weight for weight in split if weight.shape[weight.tp_dim or 0] % tp or _cuts_heads(weight, heads)), None
    )


def _cuts_heads(weight: Weight, uneven: object) -> bool:
    """Whether a key or value projection would be cut within a head."""
    return bool(uneven) and ("k_proj" in weight.name or "v_proj" in weight.name)


def local_shape(weight: Weight, plan: ParallelPlan, rank: int = 0) -> tuple[int, ...]:
    """What of a weight lies on a rank: its shape there."""
    dims, tp_rank = list(weight.shape), rank % plan.tp
    is_dispatched = plan.ep > 1 and weight.part == "experts"
    if is_dispatched:
        dims[0] //= plan.ep
        shards, index = plan.efsdp, rank // plan.ep
    else:
        if weight.tp_dim is not None and plan.tp > 1:
            dims[weight.tp_dim] = _chunk(dims[weight.tp_dim], plan.tp, tp_rank)
        shards, index = plan.fsdp, (rank - tp_rank) // plan.tp
    if shards > 1:
        dims[0] = _chunk(dims[0], shards, index)
    return tuple(dims)


def _chunk(size: int, shards: int, index: int) -> int:
    """Rows of a part, as torch.chunk cuts."""
    chunk = -(-size // shards)
    return max(0, min(chunk, size - index * chunk))


def stage_of(plan: ParallelPlan, rank: int) -> int:
    """Pipeline stage of a rank."""
    return rank // (plan.fsdp * plan.tp)


def layers_of(shape: ModelShape, plan: ParallelPlan, stage: int) -> tuple[int, ...]:
    """Kinds of the layers of a stage, in order; the last stage takes what is left over."""
    each = shape.num_layers // plan.pp
    return shape.pattern[stage * each : shape.num_layers if stage == plan.pp - 1 else (stage + 1) * each]


def local_weights(shape: ModelShape, plan: ParallelPlan, rank: int = 0) -> Iterator[tuple[Weight, int, int]]:
    """Kinds of weights of a rank: the weight, values of it on that rank, and how many alike there are."""
    stage, inner = stage_of(plan, rank), rank % (plan.fsdp * plan.tp)
    for weight in shape.outer:
        if _keeps(weight, plan, stage):
            yield weight, _size(local_shape(weight, plan, inner)), 1
    for kind, count in Counter(layers_of(shape, plan, stage)).items():
        for weight in shape.kinds[kind].weights:
            yield weight, _size(local_shape(weight, plan, inner)), count


def params_on(shape: ModelShape, plan: ParallelPlan, rank: int = 0) -> int:
    """Parameters on a rank."""
    return sum(values * count for _, values, count in local_weights(shape, plan, rank))


def fullest_rank(shape: ModelShape, plan: ParallelPlan) -> int:
    """A rank with the most parameters: the first one of a stage."""
    firsts = (stage * plan.fsdp * plan.tp for stage in range(plan.pp))
    return max(firsts, key=lambda rank: params_on(shape, plan, rank))


def unsharded(layer: Layer | Iterable[Weight], plan: ParallelPlan) -> int:
    """Values of a layer that FSDP gathers on a rank to compute with it; 0 where it splits nothing."""
    gathered = ParallelPlan(fsdp=1, ep=1, tp=plan.tp)
    total = 0
    for weight in layer.weights if isinstance(layer, Layer) else layer:
        if plan.ep > 1 and weight.part == "experts":
            total += weight.size // plan.ep if plan.efsdp > 1 else 0
        elif plan.fsdp > 1:
            total += _size(local_shape(weight, gathered))
    return total


def _keeps(weight: Weight, plan: ParallelPlan, stage: int) -> bool:
    is_first, is_last = stage == 0, stage == plan.pp - 1
    return {"first": is_first, "last": is_last, "ends": is_first or is_last, "every": True}[weight.stage]


def _size(dims: tuple[int, ...]) -> int:
    product = 1
    for each in dims:
        product *= each
    return product


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
