"""The Small 4 architecture: a thin subclass of transformers' Mistral4 that trains from scratch and is exportable.

What differs from Mistral4: an own model type in the Auto classes; the softmax scale of attention is an explicit field
(transformers 5.23 multiplies it by YaRN's mscale squared, which the released weights do not want); the routers are kept
balanced and compute in float32. Weight names are Mistral4's.
"""

import math
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.mistral4.configuration_mistral4 import Mistral4Config
from transformers.models.mistral4.modeling_mistral4 import (
    Mistral4ForCausalLM,
    Mistral4Model,
    Mistral4PreTrainedModel,
    yarn_apply_mscale,
)

from nightsmith.model.presets import BOS, BYTE_VOCABULARY, EOS, PAD, Architecture, BalanceMode, balance_mode
from nightsmith.model.router import BIAS, Batch, Small4Router, data_parallel_groups, routers
from nightsmith.record.errors import NightsmithError

OWN_FIELDS = (
    "balance_mode",
    "router_aux_loss_coef",
    "router_z_loss_coef",
    "router_bias_update_rate",
    "attn_softmax_scale",
    "auto_map",
)
"""Fields of Small4Config that Mistral4Config does not have."""


@strict
class Small4Config(Mistral4Config):
    """Mistral4Config plus what Small 4 training needs."""

    model_type = "small4"
    attribute_map = {"num_local_experts": "n_routed_experts", "num_experts": "n_routed_experts"}
    # TRL reads this attribute of every registered class and dies where it is absent.
    auto_map: dict | None = None

    balance_mode: BalanceMode | None = None
    """How the experts are kept evenly used. None: `aux` where router_aux_loss_coef is above 0, else `none`. Not checked
    against the coefficient: TRL writes its own into the configs of models that it trains."""
    router_aux_loss_coef: float = 0.0
    """Weight of each layer's load-balancing loss."""
    router_z_loss_coef: float = 0.0
    """Weight of each layer's z-loss (arXiv:2202.08906), which keeps the router's logits small; for any mode."""
    router_bias_update_rate: float = 1e-3
    """Step of the selection bias, in probability, in `bias` mode."""
    attn_softmax_scale: float | None = None
    """What attention scores are multiplied with. None: head_dim ** -0.5, without YaRN's magnitude correction."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what is None. Raises NightsmithError for routed groups."""
        super().__post_init__(**kwargs)
        if self.auto_map is None:
            self.auto_map = {}
        if self.attn_softmax_scale is None:
            self.attn_softmax_scale = self.qk_head_dim**-0.5
            self._warn_of_magnitude_correction()
        if self.balance_mode is None:
            self.balance_mode = balance_mode(None, self.router_aux_loss_coef)
        self._require_one_group()

    @classmethod
    def from_mistral4(cls, config: Mistral4Config | dict[str, Any], **own: Any) -> "Small4Config":
        """The config of a plain Mistral4 model, e.g. the released one; `own` sets the fields that it lacks."""
        fields = dict(config) if isinstance(config, dict) else config.to_dict()
        return cls(**{name: value for name, value in fields.items() if name not in _IDENTITY}, **own)

    def to_released_config(self) -> Mistral4Config:
        """The same model as a plain Mistral4Config, which transformers computes alike.

        Raises:
            NightsmithError: plain Mistral4 has no way to say this softmax scale.
        """
        fields = {name: value for name, value in self.to_dict().items() if name not in (*_IDENTITY, *OWN_FIELDS)}
        released = Mistral4Config(**fields, architectures=["Mistral4ForCausalLM"])
        scale, bare = self.attn_softmax_scale, self.qk_head_dim**-0.5
        corrected = yarn_apply_mscale(released.rope_parameters, bare)
        if _is_close(scale, corrected):
            return released
        if not _is_close(scale, bare):
            raise NightsmithError(
                f"attn_softmax_scale is {scale:g}; plain Mistral4 can say {bare:g} (head_dim ** -0.5) or {corrected:g} "
                "(YaRN's mscale squared on top) only. Keep the checkpoint in Small 4 form."
            )
        cast(dict, released.rope_parameters).update(mscale_all_dim=0.0, attention_factor=_attention_factor(self))
        return released

    def _warn_of_magnitude_correction(self) -> None:
        corrected = yarn_apply_mscale(self.rope_parameters, self.qk_head_dim**-0.5)
        if not _is_close(corrected, self.attn_softmax_scale):
            warnings.warn(
                "This config asks for YaRN's magnitude correction but names no attn_softmax_scale. Attention scores "
                f"are scaled by {self.attn_softmax_scale:.5f} (head_dim ** -0.5), as vLLM and NeMo do for the released "
                f"Small 4; transformers 5.23 would scale by {corrected:.5f}. Before training on released weights, "
                "compare a few answers with a served model, or set attn_softmax_scale.",
                stacklevel=1,
            )

    def _require_one_group(self) -> None:
        if (self.n_group or 1) != 1:
            raise NightsmithError(f"n_group is {self.n_group}: routed groups are not supported. Small 4 has n_group 1.")


_IDENTITY = ("model_type", "architectures", "transformers_version", "dtype", "head_dim", "qk_head_dim")
"""Entries of a config's dict that name its class, or follow from others."""


class _Small4(Mistral4PreTrainedModel):
    """What every head on Small 4's layers shares: Small4Router in each of them, the config's softmax scale."""

    config_class = Small4Config
    _keep_in_fp32_modules_strict = [BIAS]

    def _become_small4(self) -> None:
        """Turn the Mistral4 layers of `self.model` into Small 4's; once, in `__init__`."""
        config: Any = self.config
        for layer in cast(Any, self.model).layers:
            layer.self_attn.scaling = config.attn_softmax_scale
            if hasattr(layer.mlp, "gate"):
                layer.mlp.gate = Small4Router(config)
        cast(Any, self.model).register_forward_pre_hook(self._begin_batch, with_kwargs=True)
        self.post_init()

    def _begin_batch(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell the routers of each micro-batch. A hook of the backbone: TRL calls it past this class's `forward`."""
        if not self.training:
            return
        inputs = args[0] if args else kwargs.get("input_ids")
        batch = Batch(
            _is_token(kwargs.get("attention_mask"), kwargs["inputs_embeds"] if inputs is None else inputs),
            data_parallel_groups(self),
        )
        for layer in cast(Any, self.model).layers:
            for router in routers(layer.mlp.gate) if hasattr(layer.mlp, "gate") else ():
                router.begin(batch, counts=torch.is_grad_enabled())

    def _initialize_missing_keys(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint of another balance mode holds no bias: start it at zero, transformers leaves it undefined."""
        super()._initialize_missing_keys(*args, **kwargs)
        for router in routers(self):
            if router.bias_E is not None and not getattr(router.bias_E, "_is_hf_initialized", False):
                router.bias_E.zero_()

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """The inherited check searches the class's own source file for a decorator that stands in Mistral4's."""
        return True


class Small4ForCausalLM(_Small4, Mistral4ForCausalLM):
    """Mistral4ForCausalLM as Small 4."""

    def __init__(self, config: Small4Config) -> None:
        super().__init__(config)
        self._become_small4()


class Small4ForSequenceClassification(GenericForSequenceClassification, _Small4):
    """A score for a text, at its last token: a reward model."""

    def __init__(self, config: Small4Config) -> None:
        super(GenericForSequenceClassification, self).__init__(config)  # whose own would look for an AutoModel
        self.num_labels = config.num_labels
        self.model = Mistral4Model(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels or 1, bias=False)
        self._become_small4()


def _is_token(attention_mask: Any, inputs: Tensor) -> Tensor | None:
    """Which of the (B, L) inputs are no padding, (B * L,); None: all, or a mask that does not say."""
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != inputs.shape[:2]:
        return None
    return attention_mask.flatten().bool()


def make_config(architecture: Architecture, **routing: Any) -> Small4Config:
    """The transformers config of an architecture. YaRN of factor 1 leaves positions as they are.

    Args:
        architecture: the shape.
        routing: balancing fields of Small4Config, e.g. `router_aux_loss_coef=0.01`.
    """
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
        bos_token_id=BOS if byte_level else 1,
        eos_token_id=EOS if byte_level else 2,
        pad_token_id=PAD if byte_level else 11,
        **routing,
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


def build(architecture: Architecture, *, seed: int, **routing: Any) -> Small4ForCausalLM:
    """A freshly initialised float32 model; equal arguments give bit-equal weights. Seeds torch's generator."""
    torch.manual_seed(seed)
    return Small4ForCausalLM(make_config(architecture, **routing))


def save_as_mistral4(model: Small4ForCausalLM, folder: Path) -> None:
    """Write the model as a plain Mistral4 checkpoint, which transformers loads without this package.

    Raises:
        NightsmithError: the released architecture cannot express its softmax scale, or a selection bias that is not 0.
    """
    released = model.config.to_released_config()
    biased = [layer for layer, router in enumerate(routers(model)) if router.bias_E is not None and router.bias_E.any()]
    if biased:
        raise NightsmithError(
            f"{len(biased)} of the routers, the first in layer {biased[0]}, choose experts with a selection bias "
            "(balance_mode 'bias'), which plain Mistral4 does not have. Keep the checkpoint in Small 4 form, or train "
            "with balance_mode 'aux'."
        )
    weights = {name: value for name, value in model.state_dict().items() if not name.endswith(BIAS)}
    model.save_pretrained(folder, state_dict=weights)
    released.save_pretrained(folder)


def _attention_factor(config: Small4Config) -> float:
    """What rotary embeddings are multiplied with under this config."""
    return float(ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))[1])


def _is_close(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and math.isclose(first, second, rel_tol=1e-6)


AutoConfig.register("small4", Small4Config)
AutoModelForCausalLM.register(Small4Config, Small4ForCausalLM)
AutoModelForSequenceClassification.register(Small4Config, Small4ForSequenceClassification)
