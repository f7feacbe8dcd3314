"""Models known by name: configs and figures as their publishers give them, with the source of each. Torch-free.

A config here holds what counting needs. Where a publisher's figure and the count disagree, both are shown.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nightsmith.model.presets import PRESETS, Architecture
from nightsmith.record.errors import NightsmithError

Counting = Literal["all", "without_lookup", "without_embeddings"]
"""Whether active parameters include embedding and head, the head only, or neither."""


class UnknownModel(NightsmithError):
    """No model has this name; the text lists those that have, the nearest first."""


@dataclass(frozen=True)
class Published:
    """A model that can be planned by name."""

    title: str
    """As its publisher writes it."""
    config: Mapping[str, Any]
    """Of its config.json what counting needs."""
    sources: tuple[str, ...]
    """Where config and figures are from."""
    total: str = ""
    """Parameters in all, as published (`116.83B`, `1.6T`); empty: nothing is."""
    active: str = ""
    """Active parameters per token, as published."""
    counting: Counting = "all"
    """The publisher's way to count active parameters."""
    note: str = ""
    """What a reader should know of these figures."""


def config_of(architecture: Architecture) -> dict[str, Any]:
    """The config of a Small 4 style architecture."""
    return {
        "model_type": "small4",
        "vocab_size": architecture.vocab_size,
        "hidden_size": architecture.hidden_size,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
        "moe_intermediate_size": architecture.expert_size,
        "n_routed_experts": architecture.num_experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": architecture.top_k,
        "q_lora_rank": architecture.q_rank,
        "kv_lora_rank": architecture.kv_rank,
        "qk_nope_head_dim": architecture.nope_head_dim,
        "qk_rope_head_dim": architecture.rope_head_dim,
        "v_head_dim": architecture.value_head_dim,
        "max_position_embeddings": max(8192, architecture.seq_len),
    }


def _preset(name: str) -> Published:
    return Published(f"Nightsmith preset {name}", config_of(PRESETS[name]), ("nightsmith.model.presets",))


SMALL4 = Published(
    "Mistral Small 4 (119B-A6B, March 2026)",
    {
        "model_type": "mistral3",
        "text_config": config_of(PRESETS["small4"]) | {"max_position_embeddings": 1_048_576},
        "vision_config": {
            "model_type": "pixtral", "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096,
            "num_channels": 3, "patch_size": 14,
        },
        "spatial_merge_size": 2,
        "multimodal_projector_bias": False,
        "tie_word_embeddings": False,
    },
    (
        "transformers 5.23 Mistral4Config, documented for mistralai/Mistral-Small-4-119B-2603",
        "model card mistralai/Mistral-Small-4-119B-2603: 119B parameters, 6.5B activated per token",
    ),
    total="119B", active="6.5B", counting="all",
    note="The publisher's own config.json could not be read. Its pages give 6.5B, and elsewhere 6B (8B with embedding "
    "and output layers); the architecture has 6.63 B with both, 6.10 B without the lookup, 5.56 B without both.",
)  # fmt: skip

_GPT_OSS = {
    "model_type": "gpt_oss", "vocab_size": 201_088, "hidden_size": 2880, "intermediate_size": 2880, "head_dim": 64,
    "num_attention_heads": 64, "num_key_value_heads": 8, "num_experts_per_tok": 4, "sliding_window": 128,
    "attention_bias": True, "max_position_embeddings": 131_072,
}  # fmt: skip
_GPT_OSS_CARD = "gpt-oss model card, arXiv:2508.10925, table 1"
_DEEPSEEK_V4 = {
    "model_type": "deepseek_v4", "vocab_size": 129_280, "head_dim": 512, "num_key_value_heads": 1,
    "num_experts_per_tok": 6, "n_shared_experts": 1, "o_lora_rank": 1024, "index_n_heads": 64, "index_head_dim": 128,
    "sliding_window": 128, "hc_mult": 4, "max_position_embeddings": 1_048_576,
}  # fmt: skip
_DEEPSEEK_NOTE = (
    "Counted without the multi-token-prediction layer, which transformers does not build; how DeepSeek counts active "
    "parameters is not written down: without the embedding lookup agrees for both models. No published DeepSeek V4 has "
    "1T/37B parameters; there are Flash (284B/13B) and Pro (1.6T/49B)."
)

PUBLISHED: dict[str, Published] = {
    "small4": SMALL4,
    "gpt-oss-20b": Published(
        "GPT-OSS 20B", _GPT_OSS | {"num_hidden_layers": 24, "num_local_experts": 32},
        ("openai/gpt-oss-20b config.json", _GPT_OSS_CARD), total="20.91B", active="3.61B", counting="without_lookup",
    ),
    "gpt-oss-120b": Published(
        "GPT-OSS 120B", _GPT_OSS | {"num_hidden_layers": 36, "num_local_experts": 128},
        ("openai/gpt-oss-120b config.json", _GPT_OSS_CARD), total="116.83B", active="5.13B", counting="without_lookup",
    ),
    "llama4-scout": Published(
        "Llama 4 Scout (17Bx16E)",
        {
            "model_type": "llama4",
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "llama4_text", "vocab_size": 202_048, "hidden_size": 5120, "intermediate_size": 8192,
                "intermediate_size_mlp": 16_384, "num_hidden_layers": 48, "num_attention_heads": 40,
                "num_key_value_heads": 8, "head_dim": 128, "num_local_experts": 16, "num_experts_per_tok": 1,
                "interleave_moe_layer_step": 1, "attention_chunk_size": 8192, "max_position_embeddings": 10_485_760,
            },
            "vision_config": {
                "model_type": "llama4_vision_model", "hidden_size": 1408, "image_size": 336, "intermediate_size": 5632,
                "num_hidden_layers": 34, "num_channels": 3, "patch_size": 14, "vision_output_dim": 4096,
                "projector_input_dim": 4096, "projector_output_dim": 4096,
            },
        },
        (
            "meta-llama/Llama-4-Scout-17B-16E config.json",
            "meta-llama/Llama-4-Scout-17B-16E model card: 17B (activated), 109B (total)",
        ),
        total="109B", active="17B", counting="all", note="The publisher rounds to whole billions.",
    ),
    "qwen3-30b-a3b": Published(
        "Qwen3-30B-A3B",
        {
            "model_type": "qwen3_moe", "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144,
            "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
            "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1,
            "max_position_embeddings": 40_960,
        },
        (
            "Qwen/Qwen3-30B-A3B config.json",
            "Qwen/Qwen3-30B-A3B model card: 30.5B in total and 3.3B activated; 29.9B non-embedding",
        ),
        total="30.5B", active="3.3B", counting="all",
        note="The card's 3.3B is the count with embedding and head, cut off after one decimal.",
    ),
    "deepseek-v4-flash": Published(
        "DeepSeek V4 Flash",
        _DEEPSEEK_V4 | {
            "hidden_size": 4096, "moe_intermediate_size": 2048, "num_hidden_layers": 43, "num_attention_heads": 64,
            "q_lora_rank": 1024, "n_routed_experts": 256, "o_groups": 8, "index_topk": 512,
            "compress_ratios": [0, 0, *[4, 128] * 20, 4, 0],
        },
        ("deepseek-ai/DeepSeek-V4-Flash config.json", "arXiv:2606.19348: 284B parameters, 13B activated"),
        total="284B", active="13B", counting="without_lookup", note=_DEEPSEEK_NOTE,
    ),
    "deepseek-v4-pro": Published(
        "DeepSeek V4 Pro",
        _DEEPSEEK_V4 | {
            "hidden_size": 7168, "moe_intermediate_size": 3072, "num_hidden_layers": 61, "num_attention_heads": 128,
            "q_lora_rank": 1536, "n_routed_experts": 384, "o_groups": 16, "index_topk": 1024,
            "compress_ratios": [128, 128, *[4, 128] * 29, 4, 0],
        },
        ("deepseek-ai/DeepSeek-V4-Pro config.json", "arXiv:2606.19348: 1.6T parameters, 49B activated"),
        total="1.6T", active="49B", counting="without_lookup", note=_DEEPSEEK_NOTE,
    ),
    **{name: _preset(name) for name in PRESETS if name != "small4"},
}  # fmt: skip
"""Models by the name that `nightsmith model plan` takes."""

ALIASES = {
    "mistral-small-4": "small4", "mistral-small-4-119b-2603": "small4", "llama-4-scout": "llama4-scout",
    "llama-4-scout-17b-16e": "llama4-scout", "deepseek-v4": "deepseek-v4-pro", "gptoss-20b": "gpt-oss-20b",
    "gptoss-120b": "gpt-oss-120b",
}  # fmt: skip
"""Other spellings. `deepseek-v4` alone means its larger model, and the note of the answer says so."""


def value(figure: str) -> float:
    """A published figure as a number: `1.6T` is 1.6e12."""
    return float(figure[:-1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[figure[-1]]


def rounds_to(count: float, figure: str) -> bool:
    """Whether a count, rounded to the digits of a published figure, is that figure."""
    unit = value(f"1{figure[-1]}")
    digits = len(figure[:-1].partition(".")[2])
    return f"{count / unit:.{digits}f}" == figure[:-1]


def named(name: str) -> str | None:
    """The catalogue's name for a spelling: case, spaces, underscores and an owner before a slash do not matter."""
    plain = re.sub(r"[\s_]+", "-", name.strip().lower().rsplit("/", 1)[-1])
    flat = {re.sub(r"[^a-z0-9]", "", each): each for each in (*PUBLISHED, *ALIASES)}
    found = flat.get(re.sub(r"[^a-z0-9]", "", plain))
    return ALIASES.get(found, found) if found else None


def unknown(name: str, looked_at: str) -> UnknownModel:
    """What to raise for a name that is neither here nor a folder."""
    near = difflib.get_close_matches(name.lower(), [*PUBLISHED, *ALIASES], n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(dict.fromkeys(ALIASES.get(each, each) for each in near))}?" if near else ""
    return UnknownModel(
        f"There is no model {name!r}: {looked_at}.{meant} Known by name: {', '.join(PUBLISHED)}. Any folder with a "
        "config.json can be planned too: give its path."
    )
