"""`nightsmith model plan`: what a model takes, before anything is launched."""

from pathlib import Path
from typing import get_args

from nightsmith.agent import capacity_view
from nightsmith.model.capacity.devices import GPUS, Device
from nightsmith.model.capacity.planning import plan_capacity
from nightsmith.model.capacity.subject import subject
from nightsmith.model.capacity.workload import Method, Optimizer, Workload
from nightsmith.record.errors import NightsmithError


def plan(
    name: str, *, gpus: int, gpu: str, gpus_per_node: int, settings: dict[str, object], as_json: bool, every: bool
) -> int:
    """Print the answer. Raises NightsmithError where the request cannot be planned."""
    model = subject(name, cwd=Path.cwd())
    report = plan_capacity(model, workload(settings), gpus=gpus, device=device(gpu), gpus_per_node=gpus_per_node)
    print(report.model_dump_json(indent=1) if as_json else capacity_view.text(report, every=every))
    return 0


def device(name: str) -> Device:
    """A GPU of the table. Raises NightsmithError."""
    found = GPUS.get(name.strip().upper())
    if found is None:
        raise NightsmithError(f"The GPU {name!r} is not known. Known: {', '.join(GPUS)}.")
    return found


def workload(settings: dict[str, object]) -> Workload:
    """A way to train from command-line options. Raises NightsmithError."""
    for option, allowed in (("method", get_args(Method)), ("optimizer", get_args(Optimizer))):
        if settings[option] not in allowed:
            raise NightsmithError(f"The {option} {settings[option]!r} is not known. Known: {', '.join(allowed)}.")
    return Workload.model_validate(settings)
