"""LoRA adapters through PEFT (Hu et al. 2021, arXiv:2106.09685): where they sit, how they are kept and found again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from nightsmith.model.catalogue import resolve
from nightsmith.model.files import ADAPTER_CONFIG, weights_digest
from nightsmith.model.split_lora import use_split_lora
from nightsmith.model.split_lora_ranks import spread_adapters
from nightsmith.record.errors import Damaged

BASE = "base.json"
"""Beside an adapter: path and weights digest of the model that it was trained on."""


@dataclass(frozen=True)
class Adapted:
    """What of a model carries adapters."""

    modules: tuple[str, ...]
    """Kinds of adapted modules and expert weights, by their name within a layer."""
    num_trained: int
    """Parameters of the adapters."""
    num_all: int
    """Parameters of model and adapters."""


def add_adapters(model: nn.Module, *, base: Path, rank: int, alpha: float, seed: int, task: str = "CAUSAL_LM") -> Any:
    """The model with fresh adapters on every linear layer but the output, and on routed experts.

    Args:
        model: a whole model; it is changed.
        base: its folder, which the adapter will name.
        rank: rank of the adapters.
        alpha: they are scaled by alpha / rank.
        seed: seeds torch's generator; equal seeds give equal bits.
        task: PEFT's name of what the model is for; with `SEQ_CLS` its head is trained whole.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        target_modules="all-linear",
        target_parameters=expert_weights(model) or None,
        task_type=task,  # pyright: ignore[reportArgumentType]
        base_model_name_or_path=str(base),
    )
    adapted = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    use_split_lora(adapted)
    spread_adapters(adapted)
    return adapted


def expert_weights(model: nn.Module) -> list[str]:
    """Names, within a layer, of expert weights that are stacked in one (experts, …, …) parameter."""
    stacked = (name for name, weight in model.named_parameters() if weight.ndim == 3 and ".experts." in name)
    return sorted({".".join(name.split(".")[-3:]) for name in stacked})


def describe(model: nn.Module) -> Adapted:
    """What of a model with adapters is trained."""
    trained = [(name, weight.numel()) for name, weight in model.named_parameters() if weight.requires_grad]
    kinds = {_kind(name) for name, _ in trained}
    return Adapted(tuple(sorted(kinds)), sum(n for _, n in trained), sum(w.numel() for w in model.parameters()))


def _kind(name: str) -> str:
    """`model.layers.0.self_attn.q_proj.lora_A.default.weight` -> `self_attn.q_proj`."""
    parts = name.replace(".base_layer", "").split(".")
    place = next((i for i, part in enumerate(parts) if part.startswith("lora_")), len(parts))
    digits = [i for i, part in enumerate(parts[:place]) if part.isdigit()]
    return ".".join(parts[digits[-1] + 1 if digits else 0 : place])


def write_base(adapter: Path, base: Path, digest: str) -> None:
    """Say beside an adapter which weights it belongs to."""
    (adapter / BASE).write_text(json.dumps({"path": str(base), "weights_digest": digest}, indent=1))


def base_of(adapter: Path) -> Path:
    """The folder of the model that an adapter was trained on, verified where the adapter says its digest.

    Raises:
        Damaged: the adapter's files are broken, or the base is not the one that it was trained on.
        ModelNotFound: the base is not on this machine.
    """
    base, digest = _named_base(adapter)
    folder = resolve(base, cwd=adapter)
    if digest is not None and (found := weights_digest(folder)) != digest:
        raise Damaged(
            f"The adapter {adapter} was trained on the weights {digest[:12]} in {folder}, where {found[:12]} are now. "
            "Restore the base model, or fine-tune again."
        )
    return folder


def _named_base(adapter: Path) -> tuple[str, str | None]:
    try:
        if (adapter / BASE).is_file():
            named = json.loads((adapter / BASE).read_text())
            return str(named["path"]), str(named["weights_digest"])
        return str(json.loads((adapter / ADAPTER_CONFIG).read_text())["base_model_name_or_path"]), None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"The adapter {adapter} does not name its base model: {error!r}. Fine-tune again.") from error


def attach(model: nn.Module, adapter: Path, *, trainable: bool) -> Any:
    """The model with an adapter folder's adapters. Raises Damaged where they do not fit or cannot be read."""
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)  # pyright: ignore[reportArgumentType]
    except Exception as error:
        raise Damaged(f"The adapter {adapter} cannot be loaded: {error}. Fine-tune again.") from error
    use_split_lora(adapted)
    spread_adapters(adapted)
    return adapted
