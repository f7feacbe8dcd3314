"""Every layout of a model over GPUs, sized and ranked. Torch-free."""

from collections.abc import Callable

from nightsmith.model.capacity.devices import Device
from nightsmith.model.capacity.memory import memory_of
from nightsmith.model.capacity.report import RankedPlan
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan, fullest_rank, params_on, plans
from nightsmith.model.capacity.speed import speed_of
from nightsmith.model.capacity.workload import Workload
from nightsmith.record.errors import NightsmithError

MOST_GPUS = 4096
Permits = Callable[[ParallelPlan], bool]
"""Whether what trains can have a layout; transformers' stack can have all that `sharding.plans` finds."""


class BadLayout(NightsmithError):
    """A number of GPUs that no launch could have; the text says which are near."""


def check_gpus(gpus: int, gpus_per_node: int) -> None:
    """Raise BadLayout where so many GPUs are none, too many, or no whole number of machines."""
    if not 1 <= gpus <= MOST_GPUS:
        raise BadLayout(f"{gpus} GPUs cannot be planned: give a number from 1 to {MOST_GPUS}.")
    if gpus_per_node < 1:
        raise BadLayout(f"{gpus_per_node} GPUs in a machine cannot be: give 1 or more.")
    if gpus > gpus_per_node and gpus % gpus_per_node:
        lower = gpus - gpus % gpus_per_node
        raise BadLayout(
            f"{gpus} GPUs are no whole number of machines with {gpus_per_node}: use {lower} or "
            f"{lower + gpus_per_node}, or say how many a machine has (--gpus-per-node)."
        )


def any_plan(plan: ParallelPlan) -> bool:  # noqa: ARG001
    """Permits every layout."""
    return True


def allowed(shape: ModelShape, gpus: int, work: Workload, permits: Permits = any_plan) -> list[ParallelPlan]:
    """Layouts that the method can have: bitsandbytes' 4-bit weights are split by FSDP alone."""
    found = filter(permits, plans(shape, gpus))
    return [plan for plan in found if work.method != "qlora" or plan.ep == plan.tp == plan.pp == 1]


def ranked(
    shape: ModelShape, gpus: int, work: Workload, device: Device, gpus_per_node: int, permits: Permits = any_plan
) -> list[RankedPlan]:
    """Layouts, the best first: those that fit and train, by speed; then by what they lack."""
    sized = [size(shape, plan, work, device, gpus_per_node) for plan in allowed(shape, gpus, work, permits)]
    return sorted(sized, key=_order)


def size(shape: ModelShape, plan: ParallelPlan, work: Workload, device: Device, gpus_per_node: int) -> RankedPlan:
    """One layout, sized."""
    params = params_on(shape, plan, fullest_rank(shape, plan))
    memory = memory_of(shape, plan, work)
    headroom = device.usable_bytes - memory.total
    return RankedPlan(
        **plan.model_dump(), efsdp_ranks=plan.efsdp, params_per_rank=params,
        parameter_bytes_per_rank=params * work.value_bytes, memory=memory, fits=headroom >= 0, headroom_bytes=headroom,
        trains=plan.pp == 1, speed=speed_of(shape, plan, work, device, gpus_per_node),
    )  # fmt: skip


def smallest(
    shape: ModelShape, gpus: int, work: Workload, permits: Permits = any_plan
) -> tuple[int, ParallelPlan] | None:
    """Bytes and layout of the training layout that takes least; None where there is none."""
    trainable = (plan for plan in allowed(shape, gpus, work, permits) if plan.pp == 1)
    sized = [(memory_of(shape, plan, work).total, plan) for plan in trainable]
    return min(sized, key=lambda pair: pair[0], default=None)


def _order(plan: RankedPlan) -> tuple[bool, float]:
    works = plan.fits and plan.trains
    return (not works, -plan.speed.low if works else -plan.headroom_bytes + (0 if plan.trains else 1e18))
