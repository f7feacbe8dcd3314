"""The only loader of checkpoints."""

import json
from pathlib import Path
from typing import cast

from safetensors.torch import load_file
from torch import nn

from nightsmith.model.small4 import Small4Config, Small4ForCausalLM
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import Damaged, NightsmithError

WEIGHTS = "model.safetensors"
"""Name of the weights in a checkpoint folder."""


def load(checkpoint: Path) -> Small4ForCausalLM:
    """The model of a checkpoint folder, in evaluation mode, float32, on the CPU.

    Raises:
        NightsmithError: no checkpoint there, or not one of this architecture.
        Damaged: its weights cannot be read, or do not fit its config.
    """
    model = Small4ForCausalLM(_read_config(checkpoint))
    load_weights(model, checkpoint)
    return model.eval()


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Fill a model with a checkpoint's weights, every name exactly once. Raises Damaged."""
    try:
        model.load_state_dict(load_file(checkpoint / WEIGHTS), strict=True)
    except Exception as error:
        raise Damaged(
            f"The weights of checkpoint {checkpoint} cannot be loaded: {error}. Use another checkpoint or train again."
        ) from error


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's weights file."""
    return file_digest(checkpoint / WEIGHTS)


def _read_config(checkpoint: Path) -> Small4Config:
    path = checkpoint / "config.json"
    if not path.is_file():
        raise NightsmithError(f"{checkpoint} is not a checkpoint: it has no config.json. Give the folder of one.")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise Damaged(f"{path} is not JSON: {error}. Use another checkpoint or train again.") from error
    if config.get("model_type") != Small4Config.model_type:
        raise NightsmithError(
            f"{checkpoint} holds a model of type {config.get('model_type')!r}; "
            f"only {Small4Config.model_type!r} is loaded."
        )
    return cast(Small4Config, Small4Config.from_dict(config))
