"""Whether a job fits into this machine's memory and onto its disk, before it is started. Torch-free.

Jobs on accelerators, evaluations, and models of families that have no closed form are not looked at.
"""

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from nightsmith.model.capacity.check import Refusal, Remedy, machine, refusals
from nightsmith.model.capacity.families import known_shape, shape_of
from nightsmith.model.capacity.memory import memory_of
from nightsmith.model.capacity.planning import disk
from nightsmith.model.capacity.published import config_of
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.capacity.workload import Workload
from nightsmith.model.size import base_config
from nightsmith.record.errors import NightsmithError, Refused
from nightsmith.record.leases import DeviceKind
from nightsmith.trainer.spec import DpoSpec, GrpoSpec, PostTraining, PretrainSpec, RewardSpec, RunSpec
from nightsmith.trainer.training_file import longest_row

_SPEC: TypeAdapter[RunSpec] = TypeAdapter(RunSpec)
LOGITS_CHUNK = 1024
"""Tokens whose scores TRL's DPO holds at once; its reward models have one score a row."""
TEMPLATE_TOKENS = 64
"""Tokens that a chat template may add to a row, beside its text; assumed."""


class TooLarge(Refused):
    """A job takes more memory or disk than there is."""

    def __init__(self, kind: str, found: tuple[Refusal, ...]) -> None:
        """`found`: what lacks, with ways to train that fit, the nearest first."""
        super().__init__(f"{kind} cannot be run here. {' '.join(each.text for each in found)}")
        self.refusals = found


@dataclass(frozen=True)
class Needs:
    """What a job takes."""

    shape: ModelShape
    work: Workload
    memory_bytes: int
    disk_bytes: int


def require_room(spec: RunSpec, folder: Path, device_kind: DeviceKind) -> None:
    """Raise TooLarge where a job would not fit.

    Args:
        spec: the job.
        folder: the workspace that it would write into.
        device_kind: what it would run on.
    """
    if device_kind != "cpu":
        return
    if found := lacking(spec, memory_bytes(), shutil.disk_usage(folder).free):
        raise TooLarge(spec.kind, found)


def lacking(spec: RunSpec, memory: float, free_disk: int) -> tuple[Refusal, ...]:
    """Every reason why a job must not start on a CPU with so many bytes of memory and disk; none where it may."""
    plan = plan_of(spec)
    needs, device = _needs(spec.model_dump_json()), machine(memory, plan.world)
    if needs is None or (needs.memory_bytes <= device.usable_bytes and needs.disk_bytes <= free_disk):
        return ()
    if not isinstance(spec, PostTraining):
        return refusals(needs.shape, needs.work, device, plan=plan, disk_bytes=free_disk)
    found = refusals(needs.shape, _as_long_as_its_rows(spec, needs.work), device, plan=plan, disk_bytes=free_disk)
    return tuple(_in_rows(each, needs.work.micro_batch, spec.sequences_per_row) for each in found)


def _as_long_as_its_rows(spec: PostTraining, work: Workload) -> Workload:
    """A token has at least a byte, so that a row may be known to be shorter than `max_len`."""
    if (longest := longest_row(spec.data)) is None:
        return work
    drawn = spec.max_completion_length if isinstance(spec, GrpoSpec) else 0
    return work.model_copy(update={"seq_len": min(work.seq_len, longest + TEMPLATE_TOKENS + drawn)})


def _in_rows(refusal: Refusal, asked: int, sequences: int) -> Refusal:
    """The same, with batches counted as the spec counts them."""
    ways = [
        way if way.workload.micro_batch == asked else _batch_of(way, way.workload.micro_batch // sequences)
        for way in refusal.remedies
    ]
    return refusal.model_copy(update={"remedies": tuple(way for way in ways if way is not None)})


def _batch_of(way: Remedy, rows: int) -> Remedy | None:
    return way.model_copy(update={"change": f"a batch_size of {rows}"}) if rows else None


@lru_cache(maxsize=32)
def _needs(spec_json: str) -> Needs | None:
    """What a job takes at most; None where that is not known. By its text: a study starts the same job often."""
    spec = _SPEC.validate_json(spec_json)
    shape, work = _shape(spec), workload(spec)
    if shape is None or work is None:
        return None
    return Needs(shape, work, memory_of(shape, plan_of(spec), work).total, disk(shape, work).kept)


def plan_of(spec: RunSpec) -> ParallelPlan:
    """How a job on CPUs is laid over its processes."""
    return spec.parallel if isinstance(spec, PretrainSpec) else ParallelPlan()


def _shape(spec: RunSpec) -> ModelShape | None:
    if isinstance(spec, PretrainSpec):
        return shape_of(config_of(spec.architecture), "architecture")
    if not isinstance(spec, PostTraining):
        return None
    try:
        return known_shape(base_config(Path(spec.model.path)))
    except NightsmithError:  # absent or damaged: the job itself says so, with what mends it
        return None


def workload(spec: RunSpec) -> Workload | None:
    """How a job trains; None for one that does not train."""
    if isinstance(spec, PretrainSpec):
        rows = spec.architecture.batch_size // spec.parallel.shares
        return on_cpu(micro_batch=rows, seq_len=spec.architecture.seq_len)
    if not isinstance(spec, PostTraining):
        return None
    paired = isinstance(spec, DpoSpec | RewardSpec)
    return on_cpu(
        micro_batch=(spec.micro_batch or spec.batch_size) * spec.sequences_per_row, seq_len=spec.max_len,
        method=spec.adaptation, lora_rank=spec.lora_rank, lora_experts=spec.lora_experts,
        logits_chunk=LOGITS_CHUNK if paired else None,
    )  # fmt: skip


def on_cpu(**settings: Any) -> Workload:
    """How this version trains on a CPU: float32, nothing recomputed, all logits at once."""
    return Workload.model_validate({"precision": "fp32", "recompute": False, "logits_chunk": None, **settings})


def memory_bytes() -> float:
    """Main memory, or what a container may use of it where that is less."""
    installed = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        return min(installed, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return installed
