"""GPUs of this machine as nvidia-smi reports them, or of another one by the table of devices. Torch-free."""

import os
import shutil
import subprocess
from dataclasses import dataclass

from nightsmith.model.capacity.devices import GPUS, Device
from nightsmith.record.errors import NightsmithError
from nightsmith.record.leases import visible

_FIELDS = ("index", "uuid", "name", "memory.total", "memory.free", "compute_cap")
_CAPABILITY = {"H100": (9, 0), "H200": (9, 0), "B200": (10, 0)}
HOPPER, BLACKWELL = (9, 0), (10, 0)


@dataclass(frozen=True)
class Accelerator:
    """One GPU."""

    index: str
    """As nvidia-smi numbers it."""
    name: str
    """As it calls itself."""
    memory_bytes: int
    """What its driver reports."""
    free_bytes: int
    """Of it, what nobody uses now."""
    capability: tuple[int, int]
    """Compute capability: 9.0 is Hopper, 10.0 Blackwell."""


def found() -> tuple[Accelerator, ...]:
    """GPUs that this process may use; none where nvidia-smi is absent or finds no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    argv = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ()
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines() if line.strip()]
    whole = [row for row in rows if len(row) == len(_FIELDS)]
    allowed = visible(tuple((row[0], row[1]) for row in whole), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return tuple(_accelerator(row) for row in whole if row[0] in allowed)


def _accelerator(row: list[str]) -> Accelerator:
    index, _, name, total, free, capability = row
    major, _, minor = capability.partition(".")
    try:
        return Accelerator(index, name, int(total) * 2**20, int(free) * 2**20, (int(major), int(minor or 0)))
    except ValueError:
        raise NightsmithError(
            f"nvidia-smi reports {', '.join(row)}: memory or compute capability is no number. Name the GPUs instead, "
            "with --gpus N --gpu H100 (and --print)."
        ) from None


def of_table(device: Device, count: int) -> tuple[Accelerator, ...]:
    """GPUs of another machine, all free."""
    memory, capability = device.memory_bytes, _CAPABILITY[device.name]
    return tuple(Accelerator(str(index), device.name, memory, memory, capability) for index in range(count))


def kinds() -> tuple[Device, ...]:
    """GPUs of the table, the smallest first."""
    return tuple(sorted(GPUS.values(), key=lambda device: device.memory_bytes))
