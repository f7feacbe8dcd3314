"""Accelerators and machines that a run is sized for, with the source of each figure. Torch-free."""

from pydantic import Field

from nightsmith.model.capacity.units import GIB
from nightsmith.record.digest import Contract


class Device(Contract):
    """One accelerator, or one machine that computes on its CPU."""

    name: str
    """As it is asked for."""
    memory_bytes: int = Field(gt=0)
    """What its driver reports."""
    reserved_bytes: int = Field(ge=0)
    """Of it, what the run cannot have: context, communication buffers, the operating system."""
    fragmented_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the memory that is lost between blocks of the allocator; assumed."""
    peak_flops: float = Field(gt=0)
    """Dense bf16 matrix products, operations per second, by its data sheet."""
    node_bytes_per_s: float = Field(gt=0)
    """Between GPUs of one machine, one direction."""
    network_bytes_per_s: float = Field(gt=0)
    """Between machines, for each GPU."""
    source: str
    """Where the figures are from."""

    @property
    def usable_bytes(self) -> int:
        """What a run may fill."""
        return int(self.memory_bytes * (1 - self.fragmented_share)) - self.reserved_bytes


CONTEXT_BYTES = 3 * GIB // 2
"""CUDA context and NCCL buffers; assumed."""
HDR = 50e9
"""400 Gbit/s for each GPU, as in HGX and DGX machines."""


def _gpu(name: str, mib: int, peak: float, nvlink: float, source: str) -> Device:
    return Device(
        name=name, memory_bytes=mib * 2**20, reserved_bytes=CONTEXT_BYTES, peak_flops=peak, node_bytes_per_s=nvlink,
        network_bytes_per_s=HDR, source=source,
    )  # fmt: skip


GPUS: dict[str, Device] = {
    "H100": _gpu("H100", 81_559, 989e12, 450e9, "NVIDIA H100 SXM5 80 GB data sheet; memory as nvidia-smi reports it"),
    "H200": _gpu("H200", 143_771, 989e12, 450e9, "NVIDIA H200 SXM 141 GB data sheet; memory as nvidia-smi reports it"),
    "B200": _gpu("B200", 183_359, 2250e12, 900e9, "NVIDIA B200 SXM 180 GB data sheet; memory as nvidia-smi reports it"),
}
"""GPUs by the name that `--gpu` takes."""
