"""The Small 4 architecture: a thin subclass of transformers' Mistral4 that trains from scratch and is exportable.

What differs from Mistral4: an own model type in the Auto classes; the softmax scale of attention is an explicit field
(transformers 5.23 multiplies it by YaRN's mscale squared, which the released weights do not want); the router adds a
balance loss per layer and computes in float32. Weight names are Mistral4's.
"""

from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.mistral4.configuration_mistral4 import Mistral4Config
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from nightsmith.model.presets import BOS, BYTE_VOCABULARY, EOS, PAD, Architecture
from nightsmith.model.router import Small4Router


@strict
class Small4Config(Mistral4Config):
    """Mistral4Config plus what Small 4 training needs."""

    model_type = "small4"
    attribute_map = {"num_local_experts": "n_routed_experts", "num_experts": "n_routed_experts"}
    # TRL reads this attribute of every registered class and dies where it is absent.
    auto_map: dict | None = None

    router_aux_loss_coef: float = 0.0
    attn_softmax_scale: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the softmax scale: head_dim ** -0.5, no YaRN magnitude correction."""
        super().__post_init__(**kwargs)
        if self.auto_map is None:
            self.auto_map = {}
        if self.attn_softmax_scale is None:
            self.attn_softmax_scale = self.qk_head_dim**-0.5


class Small4ForCausalLM(Mistral4ForCausalLM):
    """Mistral4ForCausalLM with Small4Router in every layer and the config's softmax scale."""

    config_class = Small4Config

    def __init__(self, config: Small4Config) -> None:
        super().__init__(config)
        for layer in cast(Any, self.model.layers):
            layer.self_attn.scaling = config.attn_softmax_scale
            layer.mlp.gate = Small4Router(config)
        self.post_init()

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """The inherited check searches the class's own source file for a decorator that stands in Mistral4's."""
        return True


def make_config(architecture: Architecture, *, router_aux_loss_coef: float = 0.0) -> Small4Config:
    """The transformers config of an architecture. YaRN of factor 1 leaves positions as they are."""
    byte_level = architecture.vocab_size == BYTE_VOCABULARY
    return Small4Config(
        vocab_size=architecture.vocab_size,
        hidden_size=architecture.hidden_size,
        num_hidden_layers=architecture.num_layers,
        num_attention_heads=architecture.num_heads,
        num_key_value_heads=architecture.num_heads,
        moe_intermediate_size=architecture.expert_size,
        n_routed_experts=architecture.num_experts,
        num_experts_per_tok=architecture.top_k,
        q_lora_rank=architecture.q_rank,
        kv_lora_rank=architecture.kv_rank,
        qk_nope_head_dim=architecture.nope_head_dim,
        qk_rope_head_dim=architecture.rope_head_dim,
        v_head_dim=architecture.value_head_dim,
        max_position_embeddings=max(8192, architecture.seq_len),
        rope_parameters=_rope(architecture),
        router_aux_loss_coef=router_aux_loss_coef,
        bos_token_id=BOS if byte_level else 1,
        eos_token_id=EOS if byte_level else 2,
        pad_token_id=PAD if byte_level else 11,
    )


def _rope(architecture: Architecture) -> dict[str, float | int | str]:
    """Rotary settings; `mscale_all_dim` 0 and `attention_factor` 1 switch off YaRN's magnitude correction."""
    head_dim = architecture.nope_head_dim + architecture.rope_head_dim
    return {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 1.0,
        "original_max_position_embeddings": max(8192, architecture.seq_len),
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.0,
        "attention_factor": 1.0,
        "llama_4_scaling_beta": 0.1,
        "partial_rotary_factor": architecture.rope_head_dim / head_dim,
    }


def build(architecture: Architecture, *, router_aux_loss_coef: float = 0.0, seed: int) -> Small4ForCausalLM:
    """A freshly initialised float32 model; equal arguments give bit-equal weights. Seeds torch's generator."""
    torch.manual_seed(seed)
    return Small4ForCausalLM(make_config(architecture, router_aux_loss_coef=router_aux_loss_coef))


AutoConfig.register("small4", Small4Config)
AutoModelForCausalLM.register(Small4Config, Small4ForCausalLM)
