"""Families of causal language models: from a config.json to the shapes of every parameter. Torch-free.

Names, shapes and sharding rules are those of transformers 5.23, against whose meta models the tests compare each one.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from nightsmith.model.capacity import blocks, deepseek_v4, vision
from nightsmith.model.capacity.fields import BadConfig, Fields
from nightsmith.model.capacity.shapes import Layer, ModelShape, Weight

WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""Field that limits a kind of attention; other kinds see everything."""


def shape_of(content: Mapping[str, Any], where: str) -> ModelShape | None:
    """The shape of a model by its config; None where its family is not known in closed form.

    Args:
        content: a config.json.
        where: what errors call it.

    Raises:
        BadConfig: a field that the family needs is absent or of another kind.
    """
    nested = content.get("text_config")
    inner = cast("Mapping[str, Any]", nested) if isinstance(nested, Mapping) else None
    family = (inner or content).get("model_type")
    if not isinstance(family, str):
        raise BadConfig(f"{where} names no model_type, so it is not the config of a model. Restore it.")
    make = FAMILIES.get(family)
    if make is None:
        return None
    outer_tie = {"tie_word_embeddings": content["tie_word_embeddings"]} if "tie_word_embeddings" in content else {}
    fields = Fields({**(inner or content), **outer_tie}, where)
    shape = make(fields)
    extras = vision.extras(content, shape.hidden_size, where) if inner else ()
    return replace(shape, extras=extras)


def known_shape(content: Mapping[str, Any]) -> ModelShape | None:
    """The same, and None too where the config leaves out what transformers would fill in."""
    try:
        return shape_of(content, "config.json") if "model_type" in content else None
    except BadConfig:
        return None


def assemble(
    config: Fields,
    outer: Sequence[Weight],
    keys: Sequence[Hashable],
    make: Callable[[Any], Layer],
    **facts: Any,
) -> ModelShape:
    """A model whose layers are alike where their keys are."""
    kinds = list(dict.fromkeys(keys))
    family = str(config.content["model_type"])
    return ModelShape(
        family=family,
        hidden_size=config.size("hidden_size"),
        vocab_size=config.size("vocab_size"),
        max_len=config.optional("max_position_embeddings"),
        outer=tuple(outer),
        kinds=tuple(make(key) for key in kinds),
        pattern=tuple(kinds.index(key) for key in keys),
        has_pp=facts.pop("has_pp", True),
        **facts,
    )


def windows(config: Fields) -> list[int | None]:
    """How many tokens each layer's attention sees; None: all."""
    count = config.size("num_hidden_layers")
    types = config.items("layer_types")
    if types is None:
        uses = config.flag("use_sliding_window", config.content.get("model_type") in ("mistral", "mixtral"))
        limit = config.optional("sliding_window") if uses else 0
        return [limit or None] * count
    if len(types) != count:
        raise BadConfig(f"{config.where}: layer_types has {len(types)} entries for {count} layers. Restore it.")
    return [config.optional(WINDOWS[kind]) or None if kind in WINDOWS else None for kind in types]


def _kv_heads(config: Fields) -> int:
    return config.size("num_key_value_heads", config.size("num_attention_heads"))


def dense(config: Fields) -> ModelShape:
    """Llama and its relatives: grouped-query attention and a gated feed-forward block."""
    family, hidden = config.content["model_type"], config.size("hidden_size")
    biased = config.flag("attention_bias") and family in ("llama", "qwen3", "smollm3")
    mlp_bias = config.flag("mlp_bias") and family in ("llama", "smollm3")

    def layer(window: int | None) -> Layer:
        attention = blocks.grouped_query(
            config, qkv_bias=biased or family == "qwen2", out_bias=biased,
            norms="head" if family == "qwen3" else "", window=window,
        )  # fmt: skip
        mlp = blocks.gated("mlp", hidden, config.size("intermediate_size"), "mlp", bias=mlp_bias)
        return Layer((*attention.weights, *mlp, *blocks.norms(hidden)), attention.cache, attention.scores)

    outer = blocks.around(config, tp=True, tied=family == "smollm3")
    return assemble(config, outer, windows(config), layer, kv_shards=_kv_heads(config), has_tp=True)


def grouped_experts(config: Fields) -> ModelShape:
    """Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE: grouped-query attention; experts in all layers or in some."""
    family, hidden = config.content["model_type"], config.size("hidden_size")
    num_experts = config.either("num_experts", "num_local_experts")
    width = config.size("moe_intermediate_size" if family.startswith("qwen") else "intermediate_size")
    biased = config.flag("attention_bias")
    norms = {"qwen3_moe": "head", "olmoe": "all"}.get(family, "")

    def layer(key: tuple[int | None, bool]) -> Layer:
        window, is_sparse = key
        attention = blocks.grouped_query(
            config, qkv_bias=biased or (family == "qwen2_moe" and config.flag("qkv_bias", True)), out_bias=biased,
            norms=norms, window=window,
        )  # fmt: skip
        if not is_sparse:
            mlp = blocks.gated("mlp", hidden, config.size("intermediate_size"), "mlp")
        else:
            mlp = blocks.experts("mlp", num_experts, hidden, width)
            if family == "qwen2_moe":
                shared = config.size("shared_expert_intermediate_size")
                mlp += blocks.gated("mlp.shared_expert", hidden, shared, "shared_experts", tp=False)
                mlp.append(Weight("mlp.shared_expert_gate.weight", (1, hidden), "router"))
        return Layer((*attention.weights, *mlp, *blocks.norms(hidden)), attention.cache, attention.scores)

    keys = list(zip(windows(config), _sparse(config, family), strict=True))
    return assemble(
        config, blocks.around(config, tp=True), keys, layer, num_experts=num_experts,
        top_k=config.size("num_experts_per_tok"), kv_shards=_kv_heads(config), has_tp=True, has_ep=True,
    )  # fmt: skip


def _sparse(config: Fields, family: str) -> list[bool]:
    """Which layers have experts."""
    layers = range(config.size("num_hidden_layers"))
    if not family.startswith("qwen"):
        return [True for _ in layers]
    dense_ones, step = config.items("mlp_only_layers") or (), config.size("decoder_sparse_step", 1)
    return [index not in dense_ones and (index + 1) % step == 0 for index in layers]


def latent_experts(config: Fields) -> ModelShape:
    """DeepSeek-V2 and -V3, Mistral 4 and Small 4: latent attention, shared and routed experts after dense layers."""
    family, hidden = config.content["model_type"], config.size("hidden_size")
    width, num_experts = config.size("moe_intermediate_size"), config.either("n_routed_experts", "num_local_experts")
    first_dense = config.optional("first_k_dense_replace")
    attention = blocks.latent(config, tp=family == "deepseek_v2")

    def layer(is_sparse: bool) -> Layer:
        if is_sparse:
            shared = width * config.size("n_shared_experts", 1)
            mlp = blocks.experts("mlp", num_experts, hidden, width)
            mlp += blocks.gated("mlp.shared_experts", hidden, shared, "shared_experts")
        else:
            mlp = blocks.gated("mlp", hidden, config.size("intermediate_size"), "mlp")
        return Layer((*attention.weights, *mlp, *blocks.norms(hidden)), attention.cache, attention.scores)

    keys = [index >= first_dense for index in range(config.size("num_hidden_layers"))]
    return assemble(
        config, blocks.around(config, tp=True), keys, layer, num_experts=num_experts,
        top_k=config.size("num_experts_per_tok"), has_tp=True, has_ep=True,
    )  # fmt: skip


def gpt_oss(config: Fields) -> ModelShape:
    """GPT-OSS: biases everywhere, attention sinks, experts stacked as (experts, inputs, outputs)."""
    hidden, width = config.size("hidden_size"), config.size("intermediate_size")
    count = config.either("num_local_experts", "num_experts")
    biased = config.flag("attention_bias", True)

    def layer(window: int | None) -> Layer:
        attention = blocks.grouped_query(config, qkv_bias=biased, out_bias=biased, sinks=True, tp=False, window=window)
        mlp = [
            Weight("mlp.router.weight", (count, hidden), "router"),
            Weight("mlp.router.bias", (count,), "router"),
            Weight("mlp.experts.gate_up_proj", (count, hidden, 2 * width), "experts"),
            Weight("mlp.experts.gate_up_proj_bias", (count, 2 * width), "experts"),
            Weight("mlp.experts.down_proj", (count, width, hidden), "experts"),
            Weight("mlp.experts.down_proj_bias", (count, hidden), "experts"),
        ]
        return Layer((*attention.weights, *mlp, *blocks.norms(hidden)), attention.cache, attention.scores)

    limits = windows(config)
    if config.items("layer_types") is None:
        limits = [None if index % 2 else config.size("sliding_window", 128) for index in range(len(limits))]
    return assemble(
        config, blocks.around(config, tp=False), limits, layer, num_experts=count,
        top_k=config.size("num_experts_per_tok"), kv_shards=_kv_heads(config), has_ep=True,
    )  # fmt: skip


def llama4(config: Fields) -> ModelShape:
    """Llama 4's text model: a shared expert beside the routed ones, attention in chunks in most layers."""
    hidden, width = config.size("hidden_size"), config.size("intermediate_size")
    count, layers = config.either("num_local_experts", "num_experts"), config.size("num_hidden_layers")
    biased, step = config.flag("attention_bias"), config.size("interleave_moe_layer_step", 1)
    sparse = config.items("moe_layers") or tuple(range(step - 1, layers, step))

    def layer(key: tuple[int | None, bool]) -> Layer:
        attention = blocks.grouped_query(config, qkv_bias=biased, out_bias=biased, window=key[0])
        if key[1]:
            mlp = [
                Weight("feed_forward.router.weight", (count, hidden), "router"),
                Weight("feed_forward.experts.gate_up_proj", (count, hidden, 2 * width), "experts", 2),
                Weight("feed_forward.experts.down_proj", (count, width, hidden), "experts", 1),
                *blocks.gated("feed_forward.shared_expert", hidden, width, "shared_experts"),
            ]
        else:
            mlp = blocks.gated("feed_forward", hidden, config.size("intermediate_size_mlp"), "mlp")
        return Layer((*attention.weights, *mlp, *blocks.norms(hidden)), attention.cache, attention.scores)

    limits = windows(config)
    if config.items("layer_types") is None:
        every, chunk = config.size("no_rope_layer_interval", 4), config.size("attention_chunk_size", 8192)
        limits = [chunk if (index + 1) % every else None for index in range(layers)]
    return assemble(
        config, blocks.around(config, tp=True), [(limit, index in sparse) for index, limit in enumerate(limits)],
        layer, num_experts=count, top_k=config.size("num_experts_per_tok", 1), kv_shards=_kv_heads(config),
        has_tp=True, has_pp=False,
    )  # fmt: skip


def deepseek_v4_model(config: Fields) -> ModelShape:
    """DeepSeek-V4: see `deepseek_v4`."""
    kinds = deepseek_v4.layer_types(config)
    return assemble(
        config, deepseek_v4.outer(config), kinds, lambda kind: deepseek_v4.layer(config, kind),
        num_experts=config.either("n_routed_experts", "num_local_experts"), top_k=config.size("num_experts_per_tok"),
        residual_streams=config.size("hc_mult"), has_tp=True, has_ep=True,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[Fields], ModelShape]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3"), dense),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe"), grouped_experts),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "mistral4", "small4"), latent_experts),
    "gpt_oss": gpt_oss,
    "llama4_text": llama4,
    "deepseek_v4": deepseek_v4_model,
}
"""Families by `model_type`."""
