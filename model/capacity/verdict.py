"""Whether a run fits, and which changes would make it fit. Nothing is changed by itself. Torch-free."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nightsmith.model.capacity.devices import GPUS, Device
from nightsmith.model.capacity.ranking import Permits, any_plan, ranked, smallest
from nightsmith.model.capacity.report import Alternative, RankedPlan, Verdict
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.capacity.units import size
from nightsmith.model.capacity.workload import Method, Workload

MOST_ALTERNATIVE_GPUS = 1024
LEAST_SEQ_LEN = 512
DEFAULTS = Workload()


@dataclass(frozen=True)
class Setup:
    """A request: what is trained how on what."""

    name: str
    """As a command names the model."""
    shape: ModelShape
    """The model."""
    work: Workload
    """How it is trained."""
    gpus: int
    """GPUs."""
    device: Device
    """Which."""
    gpus_per_node: int
    """In one machine."""
    permits: Permits = any_plan
    """Which layouts what trains can have."""


def verdict(setup: Setup, plans: Sequence[RankedPlan]) -> Verdict:
    """Judge the ranked layouts of a request."""
    best = next((plan for plan in plans if plan.trains), None)
    if best is not None and best.fits:
        return _fits(setup, best)
    found = tuple(undominated(list(_alternatives(setup))))
    lacking = best.memory.total if best else 0
    taken = f"its best layout takes {size(lacking)} of each GPU's {size(setup.device.usable_bytes)}"
    text = f"does not fit: {taken if best else 'no layout trains on so many GPUs'}."
    if not found:
        text += f" No change up to {MOST_ALTERNATIVE_GPUS} GPUs was found that would make it fit."
    return Verdict(
        fits=False, text=text, plan=_bare(best) if best else None, needed_bytes=lacking,
        usable_bytes=setup.device.usable_bytes, longest_seq_len=0, alternatives=found,
    )  # fmt: skip


def _fits(setup: Setup, best: RankedPlan) -> Verdict:
    text = (
        f"fits: {size(best.memory.total)} of {size(setup.device.usable_bytes)} usable on each GPU, "
        f"{size(best.headroom_bytes)} to spare."
    )
    return Verdict(
        fits=True, text=text, plan=_bare(best), needed_bytes=best.memory.total, usable_bytes=setup.device.usable_bytes,
        longest_seq_len=longest_seq_len(setup), alternatives=(),
    )  # fmt: skip


def longest_seq_len(setup: Setup) -> int:
    """Longest sequence, a power of two, with which some layout fits, up to what the config names (else 2^20)."""
    most = setup.shape.max_len or 2**20
    best, length = 0, LEAST_SEQ_LEN
    while length <= most and _fit(setup, setup.work.model_copy(update={"seq_len": length}), setup.gpus, setup.device):
        best, length = length, length * 2
    return best


def _alternatives(setup: Setup) -> Iterator[Alternative]:
    """Changes that make it fit, the nearest first: the optimizer, the sequence, the GPU, more GPUs, the method."""
    thrifty = setup.work.model_copy(update={"optimizer": "adamw8bit"})
    works = [setup.work] if thrifty == setup.work or setup.work.method != "full" else [setup.work, thrifty]
    larger = [gpu for gpu in GPUS.values() if gpu.memory_bytes > setup.device.memory_bytes]
    for work in works[1:]:
        yield from _try(setup, work, setup.gpus, setup.device)
    yield from _shorter(setup, works)
    for gpu in larger:
        for work in works:
            yield from _try(setup, work, setup.gpus, gpu)
    for gpu in (setup.device, *larger):
        for work in works:
            yield from _more(setup, work, gpu)
    lighter = [setup.work.model_copy(update={"method": method}) for method in _lighter(setup.work.method)]
    for work in lighter:
        yield from _try(setup, work, setup.gpus, setup.device)
    yield from _shorter(setup, lighter)


def _lighter(method: Method) -> tuple[Method, ...]:
    lighter: dict[Method, tuple[Method, ...]] = {"full": ("lora", "qlora"), "lora": ("qlora",), "qlora": ()}
    return lighter[method]


def _shorter(setup: Setup, works: Iterable[Workload]) -> Iterator[Alternative]:
    for work in works:
        length = work.seq_len // 2
        while length >= LEAST_SEQ_LEN:
            found = list(_try(setup, work.model_copy(update={"seq_len": length}), setup.gpus, setup.device))
            if found:
                yield from found
                break
            length //= 2


def _more(setup: Setup, work: Workload, gpu: Device) -> Iterator[Alternative]:
    """The fewest GPUs with which it fits: doubled, and whole machines once they are more than one."""
    count = setup.gpus * 2
    while count <= MOST_ALTERNATIVE_GPUS:
        whole = count if count <= setup.gpus_per_node else -(-count // setup.gpus_per_node) * setup.gpus_per_node
        found = list(_try(setup, work, whole, gpu))
        if found:
            yield from found
            return
        count *= 2


def _try(setup: Setup, work: Workload, gpus: int, device: Device) -> Iterator[Alternative]:
    if _fit(setup, work, gpus, device):
        best = next(
            plan
            for plan in ranked(setup.shape, gpus, work, device, setup.gpus_per_node, setup.permits)
            if plan.fits and plan.trains
        )
        yield Alternative(
            change=_words(setup, work, gpus, device), gpus=gpus, gpu=device.name, workload=work, plan=_bare(best),
            needed_bytes=best.memory.total, usable_bytes=device.usable_bytes,
            command=command(setup.name, work, gpus, device.name),
        )  # fmt: skip


def _fit(setup: Setup, work: Workload, gpus: int, device: Device) -> ParallelPlan | None:
    found = smallest(setup.shape, gpus, work, setup.permits)
    return found[1] if found and found[0] <= device.usable_bytes else None


def undominated(found: Sequence[Alternative]) -> list[Alternative]:
    """Without those that another one beats: sequences as long, on no more GPUs that are no larger."""

    def beats(one: Alternative, other: Alternative) -> bool:
        is_no_more = one.gpus <= other.gpus and one.usable_bytes <= other.usable_bytes
        is_as_long = one.workload.seq_len >= other.workload.seq_len
        is_alike = one.workload == other.workload.model_copy(update={"seq_len": one.workload.seq_len})
        return is_alike and is_no_more and is_as_long and one.command != other.command

    kept = {each.command: each for each in found if not any(beats(one, each) for one in found)}
    return list(kept.values())


def _words(setup: Setup, work: Workload, gpus: int, device: Device) -> str:
    changes = [
        (work.method != setup.work.method, {"lora": "LoRA", "qlora": "QLoRA", "full": "full training"}[work.method]),
        (gpus != setup.gpus or device != setup.device, f"{gpus} {device.name}"),
        (work.optimizer != setup.work.optimizer, "AdamW with 8-bit states"),
        (work.seq_len != setup.work.seq_len, f"sequences of {work.seq_len:,} tokens"),
    ]
    return " with ".join(words for is_changed, words in changes if is_changed)


def command(name: str, work: Workload, gpus: int, gpu: str) -> str:
    """The command that plans such a request."""
    settings = {
        "method": work.method, "optimizer": work.optimizer, "seq-len": work.seq_len, "micro-batch": work.micro_batch,
        "lora-rank": work.lora_rank,
    }  # fmt: skip
    usual = {**{each: getattr(DEFAULTS, each.replace("-", "_")) for each in settings}, "gpu": "H100"}
    options = [f"--{each} {value}" for each, value in {"gpu": gpu, **settings}.items() if value != usual[each]]
    options += ["--lora-experts"] if work.lora_experts else []
    return " ".join(["nightsmith model plan", shlex.quote(name), f"--gpus {gpus}", *options])


def _bare(plan: RankedPlan) -> ParallelPlan:
    return ParallelPlan(fsdp=plan.fsdp, ep=plan.ep, tp=plan.tp, pp=plan.pp)
