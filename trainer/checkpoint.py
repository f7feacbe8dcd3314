"""Checkpoints that are whole or absent: written aside, flushed, renamed. Resuming takes the newest whole one.

Where several ranks train, they gather and rank 0 writes: one folder of one kind, a model that loads as it is, which any
number of processes can go on from.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from nightsmith.model.files import WEIGHTS
from nightsmith.record.digest import canonical_json, file_digest, sha256
from nightsmith.trainer.mesh import Part, gathered

STATE, MANIFEST = "trainer.pt", "manifest.json"
KEPT = 2
"""Checkpoints kept in a run folder: the newest, and the one before it in case the newest is damaged."""


@dataclass
class TrainState:
    """What resuming needs beside weights, optimizer and generator; the data order is a function of step and seed."""

    initial_digest: str
    """Digest of the weights before the first step."""
    step: int = 0
    """Optimizer steps done."""
    losses: list[float] = field(default_factory=list)
    """Training loss of each step, nats per token."""
    train_s: float = 0.0
    """Seconds in training steps, all attempts together."""
    experts: dict[str, float] = field(default_factory=dict)
    """Health of the experts over the last steps."""


def serialise(model: nn.Module) -> bytes:
    """The model's weights as a safetensors file. Called on every rank."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in gathered(model.state_dict())}
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def model_digest(model: nn.Module) -> str:
    """SHA-256 of the weights file that `save` would write."""
    return sha256(serialise(model))


def folder(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or will be."""
    return run_dir / f"checkpoint-{step:08d}"


def save(
    run_dir: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    parts: Sequence[Part] = (),
    writes: bool = True,
) -> None:
    """Write `checkpoint-<step>` so that it is there whole or not at all; older ones beyond KEPT are removed.

    Args:
        run_dir: the run folder.
        model: whole, or this rank's part of it.
        optimizer: likewise.
        state: what else resuming needs.
        parts: what of the parameters this rank holds; nothing: all of each.
        writes: whether this rank writes; every rank has to call, to give what it holds.

    Raises:
        OSError: the disk is full (or worse); what was there before is intact.
    """
    files = _contents(model, optimizer, state, parts)
    if not writes:
        return
    final = folder(run_dir, state.step)
    aside = run_dir / f".{final.name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        _write_files(aside, files)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if final.exists():  # a damaged one that `latest` passed over
        shutil.rmtree(final)
    aside.rename(final)
    flush(run_dir)
    for old in _checkpoints(run_dir)[KEPT:]:
        shutil.rmtree(old)


def _contents(
    model: Any, optimizer: torch.optim.Optimizer, state: TrainState, parts: Sequence[Part]
) -> dict[str, bytes]:
    buffer = io.BytesIO()
    whole = _each_part(optimizer, optimizer.state_dict(), parts, Part.gather)
    torch.save({"optimizer": whole, "generator": torch.get_rng_state(), "state": vars(state)}, buffer)
    return {
        "config.json": model.config.to_json_string(use_diff=False).encode(),
        WEIGHTS: serialise(model),
        STATE: buffer.getvalue(),
    }


def _each_part(
    optimizer: torch.optim.Optimizer,
    content: dict[str, Any],
    parts: Sequence[Part],
    change: Callable[[Part, Tensor], Tensor],
) -> dict[str, Any]:
    """An optimizer's state dict with the tensors of each parameter changed."""
    by_tensor = {id(part.mine): part for part in parts}
    optimised = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    changed = {
        index: {
            name: change(by_tensor[id(optimised[index])], value) if isinstance(value, Tensor) and by_tensor else value
            for name, value in values.items()
        }
        for index, values in content["state"].items()
    }
    return {**content, "state": changed}


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    manifest = {name: sha256(content) for name, content in files.items()}
    for name, content in {**files, MANIFEST: canonical_json(manifest).encode()}.items():
        _write_flushed(folder / name, content)
    flush(folder)


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Have the disk itself hold a file, or a folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def latest(run_dir: Path) -> Path | None:
    """The newest checkpoint whose files are as they were written; None where there is none."""
    return next((path for path in _checkpoints(run_dir) if _is_whole(path)), None)


def restore(checkpoint: Path, optimizer: torch.optim.Optimizer, parts: Sequence[Part] = ()) -> TrainState:
    """Put optimizer and torch's generator back as they were at the checkpoint, bit by bit; weights are loaded before.

    `parts`: what of the parameters this rank holds; nothing: all of each.
    """
    resume = torch.load(checkpoint / STATE, weights_only=True)
    optimizer.load_state_dict(_each_part(optimizer, resume["optimizer"], parts, Part.cut))
    torch.set_rng_state(resume["generator"])
    return TrainState(**resume["state"])


def _checkpoints(run_dir: Path) -> list[Path]:
    """Newest first."""
    return sorted(run_dir.glob("checkpoint-*"), reverse=True)


def _is_whole(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        return all(file_digest(checkpoint / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False
