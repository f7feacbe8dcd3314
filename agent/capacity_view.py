"""`nightsmith model plan` for a reader: the verdict first, then what would fit, sizes, layouts. 80 columns and more."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nightsmith.agent import drawing
from nightsmith.model.capacity.memory import Memory
from nightsmith.model.capacity.report import Alternative, CapacityReport, RankedPlan
from nightsmith.model.capacity.units import size
from nightsmith.model.capacity.workload import Workload

SHOWN_PLANS = 8
METHODS = {"full": "full training", "lora": "LoRA", "qlora": "QLoRA (NF4)"}
OPTIMIZERS = {"adamw": "AdamW", "adamw8bit": "AdamW with 8-bit states"}


def number(count: float) -> str:
    """A count for a reader: `119.40 B`."""
    for limit, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= limit:
            return f"{count / limit:,.2f}{unit}"
    return f"{count:,.0f}"


def text(report: CapacityReport, *, every: bool = False) -> str:
    """The whole answer. `every`: all layouts, not the best few."""
    return drawing.drawn(*_parts(report, every))


def _parts(report: CapacityReport, every: bool) -> Iterator[RenderableType]:
    verdict = report.verdict
    yield drawing.text(f"{report.title} on {report.gpus} {report.device.name}, {way(report.workload)}")
    yield drawing.text(verdict.text[:1].upper() + verdict.text[1:], style="bold green" if verdict.fits else "bold red")
    if verdict.fits and verdict.longest_seq_len:
        yield drawing.text(f"Longest sequence that fits (powers of two): {verdict.longest_seq_len:,} tokens.")
    if verdict.alternatives:
        yield from _heading("What would fit, the nearest first")
        yield _alternatives(verdict.alternatives)
    yield from _heading("Sizes")
    yield _facts(report)
    if report.plans:
        yield from _heading("Layouts, the best first")
        yield _plans(report.plans if every else report.plans[:SHOWN_PLANS])
        yield from _below_plans(report, every)
    for note in report.notes:
        yield drawing.text(f"Note: {note}")


def _heading(words: str) -> "Iterator[RenderableType]":
    yield ""
    yield drawing.text(words, style="bold")


def way(work: Workload) -> str:
    """How it trains, in words."""
    adapters = "" if work.method == "full" else f" of rank {work.lora_rank}"
    batch = f"{work.micro_batch} × {work.seq_len:,} tokens on each"
    return f"{METHODS[work.method]}{adapters}, {OPTIMIZERS[work.optimizer]}, {work.precision}, {batch}"


def _alternatives(found: tuple[Alternative, ...]) -> Table:
    table = drawing.table("Change", ">Needs", ">Of", "Layout")
    for each in found:
        plan = each.plan
        layout = f"fsdp {plan.fsdp}, ep {plan.ep}, tp {plan.tp}"
        table.add_row(each.change, size(each.needed_bytes), size(each.usable_bytes), layout)
    return table


def _facts(report: CapacityReport) -> Table:
    return drawing.pairs(list(_lines(report)))


def _lines(report: CapacityReport) -> Iterator[tuple[str, str]]:
    params, published, cache = report.params, report.published, report.kv_cache
    vision = f" (text {number(params.text)}, vision {number(params.vision)})" if params.vision else ""
    yield "parameters", number(params.total) + vision
    yield (
        "active",
        f"{number(params.active)}; without lookup {number(params.active_without_lookup)}, without embedding and head "
        f"{number(params.active_without_embeddings)}",
    )
    if published:
        yield (
            "published",
            f"{published.total} (count {published.total_difference:+.2%}), active {published.active} "
            f"({published.active_difference:+.2%}, counted {published.counting.replace('_', ' ')})",
        )
        yield "sources", "; ".join(published.sources)
    if report.trained_params != params.text:
        yield "trained", f"{number(report.trained_params)} parameters"
    if report.verdict.plan:
        yield "each GPU", memory(report.plans[0].memory)
    yield (
        "files",
        f"model {size(report.disk.model)}, checkpoint {size(report.disk.checkpoint)}, kept at most "
        + size(report.disk.kept),
    )
    yield (
        "cache",
        (
            f"{size(cache.bytes_per_token)} a token, {size(cache.bytes_per_sequence)} for {report.workload.seq_len:,}"
            + (f", {size(cache.bytes_per_longest)} for {cache.longest:,}" if cache.longest else "")
        ),
    )
    rooms = ", ".join(f"{each.precision} {number(each.cache_tokens)}" for each in report.serving)
    yield "serving", f"tokens of cache beside the weights on these GPUs: {rooms}"
    yield "operations", f"{number(report.flops_per_token)}FLOP to train on a token"


def memory(parts: Memory) -> str:
    """What fills a GPU, largest first."""
    sizes = {name: count for name, count in parts.model_dump().items() if name != "total" and count}
    return ", ".join(f"{name} {size(count)}" for name, count in sorted(sizes.items(), key=lambda item: -item[1]))


def _plans(plans: tuple[RankedPlan, ...]) -> Table:
    table = drawing.table(">fsdp", ">ep", ">tp", ">pp", ">params/GPU", ">memory/GPU", ">tokens/s", "")
    for plan in plans:
        said = ("fits" if plan.fits else "too large") if plan.trains else "forward only"
        table.add_row(
            str(plan.fsdp), str(plan.ep), str(plan.tp), str(plan.pp), number(plan.params_per_rank),
            size(plan.memory.total), f"{number(plan.speed.low)} to {number(plan.speed.high)}",
            drawing.text(said, style="green" if said == "fits" else "yellow"),
        )  # fmt: skip
    return table


def _below_plans(report: CapacityReport, every: bool) -> Iterator[Text]:
    left = len(report.plans) - SHOWN_PLANS
    if left > 0 and not every:
        yield drawing.text(f"and {left} more (--all shows them)")
    yield drawing.text(f"Speeds: {report.speed_basis}")
