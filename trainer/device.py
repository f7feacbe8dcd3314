"""Torch as a job uses it: its threads, its device, deterministic kernels."""

import ctypes
import gc
import sys

import torch
from torch.utils import deterministic

from nightsmith.trainer.attempt import Attempt

MALLOC_OPTIONS = {-1: 1 << 30, -3: 1 << 25}
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD: free memory, and sizes, above which it goes back to the system."""


def set_up_torch(attempt: Attempt) -> torch.device:
    """Fix threads and determinism for the process; returns where tensors live.

    A leased CPU device is one thread. The launcher shows a job its leased accelerators only, so the first is its own.
    On accelerators kernels without a deterministic variant are allowed, with a warning.
    """
    cuda = any(device.startswith("cuda") for device in attempt.devices)
    keep_freed_memory()
    gc.freeze()  # Looking through all that is imported by now, again and again, takes a twentieth of it.
    torch.set_num_threads(max(1, sum(device.startswith("cpu") for device in attempt.devices)))
    torch.use_deterministic_algorithms(True, warn_only=cuda)
    # Filling fresh memory guards against reading uninitialised tensors; it costs a tenth of a tiny model's step.
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    return torch.device("cuda:0" if cuda else "cpu")


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one: fresh pages cost a tenth of a tiny model's step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, size in MALLOC_OPTIONS.items():
            mallopt(option, size)
