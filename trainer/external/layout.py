"""How an external training is laid over its GPUs: as the spec says, else the best layout that fits. Torch-free."""

from collections.abc import Callable
from dataclasses import dataclass

from nightsmith.model.capacity.check import refusals
from nightsmith.model.capacity.devices import Device
from nightsmith.model.capacity.memory import memory_of
from nightsmith.model.capacity.ranking import check_gpus, ranked
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan, why_not
from nightsmith.model.capacity.speed import speed_of
from nightsmith.model.capacity.verdict import Setup, verdict
from nightsmith.model.capacity.workload import Workload
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.post_training import DpoSpec, PostTraining

WhyNot = Callable[[ParallelPlan], str | None]
"""What keeps a trainer from a layout; None: nothing."""
FILLED_SHARE = 0.9
"""A micro-batch of more than one row is chosen so that it fills no more of the usable memory: activations are an
estimate."""


class DoesNotFit(NightsmithError):
    """No layout of the run over its GPUs fits; the text says what would."""


@dataclass(frozen=True)
class Site:
    """What a run gets."""

    gpus: int = 0
    """Accelerators; 0: it computes on the CPU, as one process."""
    device: Device | None = None
    """Which; None on the CPU."""
    gpus_per_node: int = 8
    """In one machine."""


@dataclass(frozen=True)
class Layout:
    """Where everything of a step happens."""

    plan: ParallelPlan
    """Ranks by what they split."""
    micro_batch: int
    """Rows that a rank works on at once."""
    accumulation: int
    """Micro-batches that a rank adds up before a step."""
    nodes: int = 1
    """Machines."""
    tokens_per_s: float = 0.0
    """At the slow end of what is to be expected of all GPUs together; 0: not known."""

    @property
    def processes(self) -> int:
        """Ranks on one machine."""
        return self.plan.world // self.nodes


def lay_out(name: str, shape: ModelShape, spec: PostTraining, site: Site, why: WhyNot) -> Layout:
    """The layout of a spec's run.

    Args:
        name: of the model, for commands in a refusal.
        shape: its weights.
        spec: what is trained how; its `parallel` and `micro_batch` are kept to.
        site: what it gets.
        why: layouts that the trainer cannot have.

    Raises:
        DoesNotFit: nothing fits (with alternatives), or what the spec names does not.
        BadLayout: no whole number of machines.
    """
    if site.device is None:
        return _on_cpu(spec)
    check_gpus(site.gpus, site.gpus_per_node)
    work = workload(spec)
    plan = _named(spec.parallel, shape, work, site, why) if spec.parallel else _best(name, shape, work, site, why)
    micro = spec.micro_batch or _most_rows(shape, plan, work, _rows_per_rank(spec, plan), site.device)
    at_once = work.model_copy(update={"micro_batch": micro * answers(spec)})
    nodes, accumulation = max(1, site.gpus // site.gpus_per_node), _accumulation(spec, plan, micro)
    speed = speed_of(shape, plan, at_once, site.device, site.gpus_per_node)
    return Layout(plan, micro, accumulation, nodes, speed.low)


def workload(spec: PostTraining) -> Workload:
    """A spec's way to train, as capacity sizes it. Neither trainer is asked to cut the scores of the vocabulary up."""
    return Workload(
        method=spec.adaptation, seq_len=spec.max_len, micro_batch=(spec.micro_batch or 1) * answers(spec),
        lora_rank=spec.lora_rank, lora_experts=spec.lora_experts, logits_chunk=None,
    )  # fmt: skip


def answers(spec: PostTraining) -> int:
    """Sequences of a row: a pair has two."""
    return 2 if isinstance(spec, DpoSpec) else 1


def _on_cpu(spec: PostTraining) -> Layout:
    plan = ParallelPlan()
    if spec.parallel not in (None, plan):
        raise DoesNotFit(
            f"parallel is {_words(spec.parallel)}, and the run gets no GPU. Give it {spec.parallel.world}."
        )
    micro = spec.micro_batch or spec.batch_size
    return Layout(plan, micro, _accumulation(spec, plan, micro))


def _best(name: str, shape: ModelShape, work: Workload, site: Site, why: WhyNot) -> ParallelPlan:
    """The fastest layout that fits, by `model.capacity`."""
    assert site.device is not None
    setup = Setup(
        name, shape, work, site.gpus, site.device, site.gpus_per_node, lambda plan: plan.pp == 1 and why(plan) is None
    )
    found = verdict(setup, ranked(shape, site.gpus, work, site.device, site.gpus_per_node, setup.permits))
    if found.fits and found.plan is not None:
        return found.plan
    ways = "; ".join(f"{each.change} (`{each.command}`)" for each in found.alternatives)
    mend = f" What would fit: {ways}." if ways else ""
    raise DoesNotFit(f"{name} on {site.gpus} {site.device.name} with {work.method}: {found.text}{mend}")


def _named(plan: ParallelPlan, shape: ModelShape, work: Workload, site: Site, why: WhyNot) -> ParallelPlan:
    assert site.device is not None
    if plan.world != site.gpus:
        raise DoesNotFit(
            f"parallel is {_words(plan)}: {plan.world} GPUs, and the run gets {site.gpus}. Give it {plan.world}, or "
            "leave parallel out."
        )
    replicated = "dp is for training from scratch; fsdp splits a batch here" if plan.dp > 1 else None
    if reason := replicated or why(plan) or why_not(shape, plan):
        raise DoesNotFit(f"parallel is {_words(plan)}: {reason}. Change it, or leave parallel out.")
    if lacking := refusals(shape, work, site.device, plan=plan):
        raise DoesNotFit(f"parallel is {_words(plan)}. {lacking[0].text}")
    return plan


def _rows_per_rank(spec: PostTraining, plan: ParallelPlan) -> int:
    if spec.batch_size % plan.fsdp:
        lower = spec.batch_size - spec.batch_size % plan.fsdp
        near = " or ".join(str(rows) for rows in (lower, lower + plan.fsdp) if rows)
        raise DoesNotFit(
            f"batch_size {spec.batch_size} cannot be split evenly among {plan.fsdp} ranks that see different rows. "
            f"Set it to {near}."
        )
    return spec.batch_size // plan.fsdp


def _accumulation(spec: PostTraining, plan: ParallelPlan, micro: int) -> int:
    rows = _rows_per_rank(spec, plan)
    if rows % micro:
        raise DoesNotFit(
            f"micro_batch {micro} does not divide the {rows} rows of a step that each rank gets. Use a divisor, or "
            "leave micro_batch out."
        )
    return rows // micro


def _most_rows(shape: ModelShape, plan: ParallelPlan, work: Workload, rows: int, device: Device) -> int:
    """The largest divisor of a rank's rows that fits with some memory to spare; at least one."""
    limit = FILLED_SHARE * device.usable_bytes
    divisors = [number for number in range(rows, 1, -1) if rows % number == 0]
    fitting = (
        number
        for number in divisors
        if memory_of(shape, plan, work.model_copy(update={"micro_batch": number * work.micro_batch})).total <= limit
    )
    return next(fitting, 1)


def _words(plan: ParallelPlan) -> str:
    named = plan.model_dump(exclude_defaults=True) or {"fsdp": 1}
    return " ".join(f"{name}={number}" for name, number in named.items())
