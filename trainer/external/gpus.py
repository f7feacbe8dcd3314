"""Which accelerators a job holds, as its capacity is reckoned. Torch-free."""

import shutil
import subprocess
from collections.abc import Sequence

from nightsmith.model.capacity.devices import GPUS, Device
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.external.layout import Site

QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


def site_of(devices: Sequence[str]) -> Site:
    """What a job with these leased devices gets; its GPUs are of one machine.

    Raises:
        NightsmithError: the driver does not say what they are.
    """
    leased = [device.partition(":")[2] for device in devices if device.startswith("cuda")]
    if not leased:
        return Site()
    found = [_ask(index) for index in leased]
    smallest = min(found, key=lambda device: device.memory_bytes)
    return Site(gpus=len(leased), device=smallest, gpus_per_node=len(leased))


def _ask(index: str) -> Device:
    tool = shutil.which("nvidia-smi")
    try:
        if tool is None:
            raise FileNotFoundError("nvidia-smi is not on PATH")
        argv = [tool, f"--id={index}", *QUERY]
        listing = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
        name, _, mib = listing.strip().rpartition(",")
        return device_of(name.strip(), int(mib))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NightsmithError(
            f"GPU {index} cannot be asked for its memory: {error}. Check the driver (`nvidia-smi`)."
        ) from error


def device_of(name: str, mib: int) -> Device:
    """A GPU by the name that its driver gives, with the memory that it reports; speeds of the nearest that is known."""
    known = next((gpu for short, gpu in GPUS.items() if short in name), GPUS["H100"])
    return known.model_copy(update={"name": name, "memory_bytes": mib * 2**20})
