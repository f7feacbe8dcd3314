"""Whether a run fits into the memory and onto the disk that it would have, before it is started. Torch-free.

The reasons are for programs first: what lacks, how much is needed, how much there is, and ways to train that fit.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from nightsmith.model.capacity.devices import Device
from nightsmith.model.capacity.memory import memory_of
from nightsmith.model.capacity.planning import disk
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.capacity.units import GIB, size
from nightsmith.model.capacity.workload import Workload
from nightsmith.record.digest import Contract

PROCESS_BYTES = GIB
"""Main memory of a training process beside its tensors: interpreter, libraries, data; assumed."""


class Remedy(Contract):
    """A way to train that fits where the one that was asked for does not."""

    change: str
    """In words."""
    workload: Workload
    """The way."""
    needed_bytes: int = Field(ge=0)
    """What it takes of what was lacking."""


class Refusal(Contract):
    """Why a run must not start."""

    resource: Literal["memory", "disk"]
    """What is lacking."""
    needed_bytes: int = Field(ge=0)
    """What the run takes: on each device, or on disk."""
    available_bytes: int
    """What it would have."""
    remedies: tuple[Remedy, ...] = ()
    """Ways that fit, the nearest first; empty where none was found."""

    @property
    def text(self) -> str:
        """For a reader."""
        where = {"memory": "of memory, and it would have", "disk": "on disk, and there are"}[self.resource]
        ways = "; ".join(f"{each.change} ({size(each.needed_bytes)})" for each in self.remedies)
        mend = f" What would fit: {ways}." if ways else " No change of its batch, length or method would fit."
        return f"The run takes about {size(self.needed_bytes)} {where} {size(self.available_bytes)}.{mend}"


def machine(memory_bytes: float, runs_at_once: int = 1) -> Device:
    """One CPU run's share of a machine, as a device."""
    share = max(1, int(memory_bytes / runs_at_once))
    return Device(
        name="CPU", memory_bytes=share, reserved_bytes=min(share, PROCESS_BYTES), fragmented_share=0.0, peak_flops=1e11,
        node_bytes_per_s=1e10, network_bytes_per_s=1e9, source="what the operating system reports; speeds are unused",
    )  # fmt: skip


def refusals(
    shape: ModelShape,
    work: Workload,
    device: Device,
    *,
    plan: ParallelPlan | None = None,
    disk_bytes: int | None = None,
    runs: int = 1,
) -> tuple[Refusal, ...]:
    """Every reason why a run must not start; none where it may.

    Args:
        shape: what is trained.
        work: how.
        device: one of those that it gets.
        plan: its layout over them; null: a single one.
        disk_bytes: what is free where it writes; null: not looked at.
        runs: runs whose files will lie there at the end.
    """
    layout = plan or ParallelPlan()
    found: list[Refusal] = []
    needed = memory_of(shape, layout, work).total
    if needed > device.usable_bytes:
        remedies = tuple(_remedies(shape, work, layout, device.usable_bytes))
        found.append(
            Refusal(
                resource="memory", needed_bytes=needed, available_bytes=max(0, device.usable_bytes), remedies=remedies
            )
        )
    files = disk(shape, work).kept * runs
    if disk_bytes is not None and files > disk_bytes:
        lighter = [each for each in _lighter(work) if disk(shape, each[1]).kept * runs <= disk_bytes]
        ways = tuple(
            Remedy(change=change, workload=each, needed_bytes=disk(shape, each).kept * runs) for change, each in lighter
        )
        found.append(Refusal(resource="disk", needed_bytes=files, available_bytes=disk_bytes, remedies=ways))
    return tuple(found)


def _remedies(shape: ModelShape, work: Workload, plan: ParallelPlan, usable: int) -> Iterator[Remedy]:
    """Smaller batches, then shorter sequences, each halved until it fits; then adapters."""
    ladders = (
        [(f"a batch of {number}", {"micro_batch": number}) for number in _halves(work.micro_batch, 1)],
        [(f"sequences of {number:,} tokens", {"seq_len": number}) for number in _halves(work.seq_len, 64)],
    )
    for ladder in ladders:
        for change, settings in ladder:
            lesser = work.model_copy(update=settings)
            needed = memory_of(shape, plan, lesser).total
            if needed <= usable:
                yield Remedy(change=change, workload=lesser, needed_bytes=needed)
                break
    for change, lesser in _lighter(work):
        needed = memory_of(shape, plan, lesser).total
        if needed <= usable:
            yield Remedy(change=change, workload=lesser, needed_bytes=needed)


def _lighter(work: Workload) -> list[tuple[str, Workload]]:
    return [("LoRA", work.model_copy(update={"method": "lora"}))] if work.method == "full" else []


def _halves(largest: int, least: int) -> Iterator[int]:
    number = largest // 2
    while number >= least:
        yield number
        number //= 2
