"""What a goal asks of the data, put into the arguments of a build."""

from collections.abc import Iterable
from typing import Any, Protocol

from nightsmith.tools.arguments import validated
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.build import BuildDataset

AVAILABLE = ("dedup", "split", "sample", "decontaminate")


class Request(Protocol):
    """A data step that a goal asks for."""

    @property
    def step(self) -> str:
        """Name of the step."""
        ...

    @property
    def amount(self) -> float | None:
        """How much."""
        ...

    @property
    def unit(self) -> str | None:
        """`share` (a fraction) or `rows`."""
        ...


def with_requests(args: BuildDataset, requests: Iterable[Request], *, avoid: Iterable[str] = ()) -> BuildDataset:
    """Honour a goal's data steps.

    `split` sets what is held out for dev: rows, or a share; a share above a half is read as the share of train.
    `decontaminate` is done in every build: equal texts (or prompts) are never in two splits, whatever the sources.

    Args:
        args: what would be built without them.
        requests: steps that the goal asks for.
        avoid: what the goal forbids; names of no data step are left to others.

    Raises:
        ToolError: a step that no build can do yet, an amount out of range, or a step both asked for and forbidden.
    """
    asked, forbidden = list(requests), set(avoid)
    changes: dict[str, Any] = {"dedup": False} if "dedup" in forbidden else {}
    if "split" in forbidden:
        raise ToolError("The goal forbids a split, but nothing can be judged without held-out rows. Allow a split.")
    for request in asked:
        if request.step in forbidden:
            raise ToolError(f"The goal both asks for {request.step!r} and forbids it. Drop one of the two.")
        changes |= _change(request)
    return validated(BuildDataset, {**args.model_dump(), **changes}, what="The data steps of the goal")


def _change(request: Request) -> dict[str, Any]:
    if request.step == "dedup":
        return {"dedup": True}
    if request.step == "decontaminate":
        return {}
    if request.step not in AVAILABLE:
        allowed = ", ".join(AVAILABLE)
        raise ToolError(
            f"The step {request.step!r} cannot be done yet. Available: {allowed}. Leave it out of the goal."
        )
    if request.amount is None:
        return {}
    if request.unit == "rows" or (request.unit is None and request.amount > 1):
        return {"dev_rows" if request.step == "split" else "sample_rows": request.amount}
    if request.step == "split":
        return {"dev_share": request.amount if request.amount <= 0.5 else 1 - request.amount}
    return {"sample_share": request.amount}
