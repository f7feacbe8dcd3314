"""What transformers itself leaves on a rank: its models on the meta device, laid out under a fake process group."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers.distributed import DistributedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from nightsmith.model.capacity.sharding import ParallelPlan

SMALL: dict[str, Any] = {"num_hidden_layers": 3, "hidden_size": 64, "vocab_size": 131, "num_attention_heads": 8}
GROUPED: dict[str, Any] = SMALL | {"intermediate_size": 48, "num_key_value_heads": 4}
ROUTED: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT: dict[str, Any] = SMALL | {
    "intermediate_size": 48, "moe_intermediate_size": 24, "n_routed_experts": 16, "num_experts_per_tok": 2,
    "q_lora_rank": 20, "kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 10,
    "num_key_value_heads": 8, "first_k_dense_replace": 1,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "mistral4": LATENT,
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "qwen3_moe": GROUPED | ROUTED | {"num_experts": 12, "head_dim": 8, "mlp_only_layers": [1]},
    "qwen2_moe": GROUPED | ROUTED | {"shared_expert_intermediate_size": 40},
    "mixtral": GROUPED | {"num_local_experts": 8, "num_experts_per_tok": 2},
    "olmoe": GROUPED | {"num_experts": 8, "num_experts_per_tok": 2},
    "gpt_oss": GROUPED | {"head_dim": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
    "llama4_text": GROUPED
    | {"head_dim": 8, "num_local_experts": 8, "intermediate_size_mlp": 96, "interleave_moe_layer_step": 2},
    "deepseek_v4": SMALL
    | {
        "head_dim": 16,
        "moe_intermediate_size": 24,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "q_lora_rank": 20,
        "o_groups": 4,
        "o_lora_rank": 6,
        "index_n_heads": 4,
        "index_head_dim": 8,
        "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
    },
    "llama": GROUPED | {"attention_bias": True, "mlp_bias": True},
    "mistral": GROUPED | {"head_dim": 8},
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | {"head_dim": 8},
    "smollm3": GROUPED | {"pad_token_id": 0},
}
"""A small config of every family that capacity knows."""


def class_of(family: str) -> Any:
    """The causal language model of a family; Mistral 4 is not in transformers' own mapping."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(family, "Mistral4ForCausalLM")
    return getattr(transformers, name)


def config_of(family: str, **settings: Any) -> Any:
    """A transformers config; the family's defaults where nothing is said."""
    return CONFIG_MAPPING[family](**settings)


def shapes_on_rank(family: str, config: Any, plan: ParallelPlan, rank: int) -> dict[str, tuple[int, ...]]:
    """Shapes, by name, of the parameters that a rank holds."""
    model_class = class_of(family)
    with _fake_group(plan.world, rank):
        layout = DistributedConfig(fsdp_size=plan.fsdp, ep_size=plan.ep, tp_size=plan.tp, pp_size=plan.pp)
        layout, _, mesh = model_class.prepare_distribute_model(layout)
        with torch.device("meta"):
            model = model_class(config)
        model = model_class.maybe_distribute_model(model, layout, mesh)
        if plan.pp == 1:
            model.tie_weights()
        return {name: tuple(_local(weight).shape) for name, weight in model.named_parameters()}


def count_on_rank(family: str, config: Any, plan: ParallelPlan, rank: int) -> int:
    """Parameters that a rank holds."""
    return sum(math.prod(shape) for shape in shapes_on_rank(family, config, plan, rank).values())


def _local(weight: Any) -> Any:
    return weight.to_local() if hasattr(weight, "to_local") else weight


@contextmanager
def _fake_group(world: int, rank: int) -> Iterator[None]:
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
