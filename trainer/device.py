"""Torch as a job uses it: its threads, its device, deterministic kernels."""

import torch
from torch.utils import deterministic

from nightsmith.trainer.attempt import Attempt


def set_up_torch(attempt: Attempt) -> torch.device:
    """Fix threads and determinism for the process; returns where tensors live.

    A leased CPU device is one thread. The launcher shows a job its leased accelerators only, so the first is its own.
    On accelerators kernels without a deterministic variant are allowed, with a warning.
    """
    cuda = any(device.startswith("cuda") for device in attempt.devices)
    torch.set_num_threads(max(1, sum(device.startswith("cpu") for device in attempt.devices)))
    torch.use_deterministic_algorithms(True, warn_only=cuda)
    # Filling fresh memory guards against reading uninitialised tensors; it costs a tenth of a tiny model's step.
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    return torch.device("cuda:0" if cuda else "cpu")
