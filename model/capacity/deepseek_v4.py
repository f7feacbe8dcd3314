"""DeepSeek-V4 (arXiv:2606.19348): attention over compressed history, hyper-connections, experts. Torch-free."""

from typing import Any, cast

from nightsmith.model.capacity import blocks
from nightsmith.model.capacity.fields import BadConfig, Fields
from nightsmith.model.capacity.shapes import Layer, Span, Weight

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
KINDS = {0: SLIDING, 4: SPARSE, 128: HEAVY}
"""Kind of layer by the published config's `compress_ratios`."""


def layer_types(config: Fields) -> list[str]:
    """Attention of each layer: `layer_types`, or the published `compress_ratios`, whose last entries are MTP's."""
    count = config.size("num_hidden_layers")
    types, ratios = config.items("layer_types"), config.items("compress_ratios")
    if types is None and ratios is None:
        return [HEAVY if index < 2 or index % 2 == 0 else SPARSE for index in range(count)]
    named = list(types) if types is not None else [KINDS.get(ratio) for ratio in ratios or ()]
    if len(named) < count or not all(kind in KINDS.values() for kind in named[:count]):
        raise BadConfig(f"{config.where}: the attention of {count} layers is not named by {named}. Restore it.")
    return [str(kind) for kind in named[:count]]


def layer(config: Fields, kind: str) -> Layer:
    """One layer of a kind."""
    hidden, width = config.size("hidden_size"), config.size("moe_intermediate_size")
    weights = [
        *_attention(config),
        *_compressor(config, kind),
        *blocks.experts("mlp", config.either("n_routed_experts", "num_local_experts"), hidden, width),
        *blocks.gated("mlp.shared_experts", hidden, width, "shared_experts", tp=False),
        *blocks.norms(hidden),
        *_connection("attn_hc", config),
        *_connection("ffn_hc", config),
    ]
    return Layer(tuple(weights), *_spans(config, kind))


def _attention(config: Fields) -> list[Weight]:
    """One key-value head that all query heads share; queries and outputs through low ranks."""
    hidden, heads, dim = config.size("hidden_size"), config.size("num_attention_heads"), config.size("head_dim")
    q_rank, groups, o_rank = config.size("q_lora_rank"), config.size("o_groups"), config.size("o_lora_rank")
    return [
        *blocks.linear("self_attn.q_a_proj", q_rank, hidden, "attention"),
        blocks.norm("self_attn.q_a_norm", q_rank),
        *blocks.linear("self_attn.q_b_proj", heads * dim, q_rank, "attention"),
        *blocks.linear("self_attn.kv_proj", dim, hidden, "attention"),
        blocks.norm("self_attn.kv_norm", dim),
        *blocks.linear("self_attn.o_a_proj", groups * o_rank, heads * dim // groups, "attention"),
        *blocks.linear("self_attn.o_b_proj", hidden, groups * o_rank, "attention"),
        Weight("self_attn.sinks", (heads,), "attention"),
    ]


def _compressor(config: Fields, kind: str) -> list[Weight]:
    if kind == SLIDING:
        return []
    prefix, hidden = "self_attn.compressor", config.size("hidden_size")
    dim = config.size("head_dim")
    if kind == HEAVY:
        return _pool(prefix, _rate(config, kind), dim, dim, hidden)
    indexer, index_heads, index_dim = f"{prefix}.indexer", config.size("index_n_heads"), config.size("index_head_dim")
    return [
        *_pool(prefix, _rate(config, kind), 2 * dim, dim, hidden),
        *_pool(indexer, _rate(config, kind), 2 * index_dim, index_dim, hidden),
        *blocks.linear(f"{indexer}.q_b_proj", index_heads * index_dim, config.size("q_lora_rank"), "attention"),
        *blocks.linear(f"{indexer}.scorer.weights_proj", index_heads, hidden, "attention"),
    ]


def _pool(prefix: str, rate: int, width: int, dim: int, hidden: int) -> list[Weight]:
    """What turns `rate` tokens into one entry."""
    return [
        *blocks.linear(f"{prefix}.kv_proj", width, hidden, "attention"),
        *blocks.linear(f"{prefix}.gate_proj", width, hidden, "attention"),
        Weight(f"{prefix}.position_bias", (rate, width), "norm"),
        blocks.norm(f"{prefix}.kv_norm", dim),
    ]


def _rate(config: Fields, kind: str) -> int:
    rates = config.content.get("compress_rates")
    default = next(ratio for ratio, name in KINDS.items() if name == kind)
    if not isinstance(rates, dict):
        return default
    return Fields(cast("dict[str, Any]", rates), config.where).size(kind, default)


def _connection(name: str, config: Fields) -> list[Weight]:
    """A hyper-connection: how the copies of the residual stream are read, mixed and written."""
    streams = config.size("hc_mult")
    mixes = (2 + streams) * streams
    return [
        Weight(f"{name}.fn", (mixes, streams * config.size("hidden_size")), "norm"),
        Weight(f"{name}.base", (mixes,), "norm"),
        Weight(f"{name}.scale", (3,), "norm"),
    ]


def outer(config: Fields) -> tuple[Weight, ...]:
    """Embedding, norm and head, and what merges the copies of the residual stream before the head."""
    streams = config.size("hc_mult")
    merge = (
        Weight("model.hc_head.hc_fn", (streams, streams * config.size("hidden_size")), "norm"),
        Weight("model.hc_head.hc_base", (streams,), "norm"),
        Weight("model.hc_head.hc_scale", (1,), "norm"),
    )
    return (*blocks.around(config, tp=True), *merge)


def _spans(config: Fields, kind: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """What a layer keeps and what a query is multiplied with: the last tokens, and compressed entries of all."""
    heads, dim, window = config.size("num_attention_heads"), config.size("head_dim"), config.size("sliding_window")
    products = 2 * heads * dim
    near = Span(dim, limit=window), Span(products, limit=window)
    if kind == SLIDING:
        return (near[0],), (near[1],)
    rate = _rate(config, kind)
    if kind == HEAVY:
        return (near[0], Span(dim, rate)), (near[1], Span(products, rate))
    index_dim = config.size("index_head_dim")
    looks = Span(products, rate, config.size("index_topk")), Span(config.size("index_n_heads") * index_dim, rate)
    return (near[0], Span(dim, rate), Span(index_dim, rate)), (near[1], *looks)
