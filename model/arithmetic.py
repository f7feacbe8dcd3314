"""How a model computes while it trains: which kernels, and in what its matrix products are.

On a CPU that multiplies bfloat16 natively, Small 4 models train with bfloat16 products: weights, gradients, optimizer,
norms, router and loss stay float32. That is a function of machine and request alone, so equal specs train alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers.models.mistral4.modeling_mistral4 import (
    Mistral4Attention,
    Mistral4MLP,
    Mistral4Model,
    Mistral4RMSNorm,
)

from nightsmith.model.attention import CAUSAL_BLOCKS
from nightsmith.model.attention_latent import OneNodeAttention
from nightsmith.model.backbone import LeanModel
from nightsmith.model.experts import SEGMENTS
from nightsmith.model.norm import LeanRMSNorm
from nightsmith.model.router import LeanRouter, Small4Router
from nightsmith.model.small4 import Small4ForCausalLM
from nightsmith.model.swiglu import OneNodeMLP

LEAN: dict[type, type] = {
    Mistral4Attention: OneNodeAttention,
    Mistral4MLP: OneNodeMLP,
    Mistral4Model: LeanModel,
    Mistral4RMSNorm: LeanRMSNorm,
    Small4Router: LeanRouter,
}
"""Module -> the same in few memory passes, where it can."""


@dataclass(frozen=True)
class Arithmetic:
    """Kernels by their names in transformers, and the type of matrix products. None: as the model is."""

    attention: str | None = None
    experts: str | None = None
    products: Literal["float32", "bfloat16"] = "float32"

    @contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        """The model computes like this inside, and as before outside: evaluations are those of the saved model."""
        if self.attention is None:
            yield
            return
        before = model.config._attn_implementation, model.config._experts_implementation
        _use(model, self.attention, self.experts)
        _change_classes(model, LEAN)
        try:
            yield
        finally:
            _use(model, *before)
            _change_classes(model, {lean: plain for plain, lean in LEAN.items()})

    def autocast(self) -> torch.autocast:
        """Around a forward pass."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.products == "bfloat16")


def _use(model: Any, attention: str | None, experts: str | None) -> None:
    model.set_attn_implementation(attention)
    model.set_experts_implementation(experts)


def _change_classes(model: nn.Module, classes: dict[type, type]) -> None:
    """The classes differ in `forward` only: weights, names and hooks stay."""
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]


def choose(model: Any, device: torch.device, precision: Literal["auto", "float32"]) -> Arithmetic:
    """The fastest arithmetic for training this model on this machine; `float32` keeps bfloat16 out of it."""
    if device.type != "cpu" or not isinstance(model, Small4ForCausalLM):
        return Arithmetic()
    bfloat16 = precision == "auto" and multiplies_bfloat16()
    return Arithmetic(CAUSAL_BLOCKS, SEGMENTS, "bfloat16" if bfloat16 else "float32")


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (AVX512-BF16 or AMX); others emulate them slowly."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
