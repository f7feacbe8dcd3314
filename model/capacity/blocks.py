"""Building blocks of the families: linear layers, attention, feed-forward and experts, as transformers shapes them."""

from dataclasses import dataclass

from nightsmith.model.capacity.fields import Fields
from nightsmith.model.capacity.shapes import Part, Span, Weight

COLUMNS, ROWS = 0, 1
"""Dimension of a linear layer's weight that tensor parallelism splits: its outputs, or its inputs."""


def linear(
    name: str, outputs: int, inputs: int, part: Part, tp: int | None = None, *, bias: bool = False
) -> tuple[Weight, ...]:
    """A linear layer; its bias is split with its outputs."""
    weight = Weight(f"{name}.weight", (outputs, inputs), part, tp)
    return (weight, Weight(f"{name}.bias", (outputs,), part, tp if tp == COLUMNS else None)) if bias else (weight,)


def norm(name: str, size: int) -> Weight:
    """The scale of a normalisation."""
    return Weight(f"{name}.weight", (size,), "norm")


@dataclass(frozen=True)
class Attention:
    """An attention block and what it keeps and multiplies per token."""

    weights: tuple[Weight, ...]
    """Its parameters."""
    cache: tuple[Span, ...]
    """Keys and values kept."""
    scores: tuple[Span, ...]
    """Products per query."""


def grouped_query(
    config: Fields,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    norms: str = "",
    sinks: bool = False,
    tp: bool = True,
    window: int | None = None,
) -> Attention:
    """Grouped-query attention. `norms`: "head" normalises queries and keys per head, "all" over all heads at once."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", heads)
    head_dim = config.size("head_dim", max(1, hidden // heads))
    columns, rows = (COLUMNS, ROWS) if tp else (None, None)
    weights = [
        *linear("self_attn.q_proj", heads * head_dim, hidden, "attention", columns, bias=qkv_bias),
        *linear("self_attn.k_proj", kv_heads * head_dim, hidden, "attention", columns, bias=qkv_bias),
        *linear("self_attn.v_proj", kv_heads * head_dim, hidden, "attention", columns, bias=qkv_bias),
        *linear("self_attn.o_proj", hidden, heads * head_dim, "attention", rows, bias=out_bias),
    ]
    if norms:
        sizes = (head_dim, head_dim) if norms == "head" else (heads * head_dim, kv_heads * head_dim)
        weights += [norm("self_attn.q_norm", sizes[0]), norm("self_attn.k_norm", sizes[1])]
    if sinks:
        weights.append(Weight("self_attn.sinks", (heads,), "attention"))
    cache, scores = Span(2 * kv_heads * head_dim, limit=window), Span(2 * heads * head_dim, limit=window)
    return Attention(tuple(weights), (cache,), (scores,))


def latent(config: Fields, *, tp: bool) -> Attention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): the cache holds one latent and one rotary key."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    q_rank, kv_rank = config.optional("q_lora_rank"), config.size("kv_lora_rank")
    nope, rope = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim")
    value, bias = config.size("v_head_dim"), config.flag("attention_bias")
    columns, rows = (COLUMNS, ROWS) if tp else (None, None)
    queries = heads * (nope + rope)
    if q_rank:
        query = (
            *linear("self_attn.q_a_proj", q_rank, hidden, "attention", bias=bias),
            norm("self_attn.q_a_layernorm", q_rank),
            *linear("self_attn.q_b_proj", queries, q_rank, "attention", columns),
        )
    else:
        query = linear("self_attn.q_proj", queries, hidden, "attention", columns)
    weights = (
        *query,
        *linear("self_attn.kv_a_proj_with_mqa", kv_rank + rope, hidden, "attention", bias=bias),
        norm("self_attn.kv_a_layernorm", kv_rank),
        *linear("self_attn.kv_b_proj", heads * (nope + value), kv_rank, "attention", columns),
        *linear("self_attn.o_proj", hidden, heads * value, "attention", rows, bias=bias),
    )
    return Attention(weights, (Span(kv_rank + rope),), (Span(heads * (nope + rope + value)),))


def gated(prefix: str, hidden: int, width: int, part: Part, *, tp: bool = True, bias: bool = False) -> list[Weight]:
    """A gated feed-forward block: gate, up, down."""
    columns, rows = (COLUMNS, ROWS) if tp else (None, None)
    return [
        *linear(f"{prefix}.gate_proj", width, hidden, part, columns, bias=bias),
        *linear(f"{prefix}.up_proj", width, hidden, part, columns, bias=bias),
        *linear(f"{prefix}.down_proj", hidden, width, part, rows, bias=bias),
    ]


def experts(prefix: str, count: int, hidden: int, width: int, *, router: str = "gate") -> list[Weight]:
    """A router and stacked experts: gate and up in one weight, as (experts, outputs, inputs)."""
    return [
        Weight(f"{prefix}.{router}.weight", (count, hidden), "router"),
        Weight(f"{prefix}.experts.gate_up_proj", (count, 2 * width, hidden), "experts", 1),
        Weight(f"{prefix}.experts.down_proj", (count, hidden, width), "experts", 2),
    ]


def norms(hidden: int) -> list[Weight]:
    """The two normalisations of a layer."""
    return [norm("input_layernorm", hidden), norm("post_attention_layernorm", hidden)]


def around(config: Fields, *, tp: bool, tied: bool = False) -> tuple[Weight, ...]:
    """Embedding, final norm and head; a tied head is the embedding. `tied`: what a config without the field means."""
    vocab, hidden = config.size("vocab_size"), config.size("hidden_size")
    is_tied = config.flag("tie_word_embeddings", tied)
    split = COLUMNS if tp else None
    embedding = Weight("model.embed_tokens.weight", (vocab, hidden), "embedding", split, "ends" if is_tied else "first")
    final = Weight("model.norm.weight", (hidden,), "norm", None, "last")
    head = Weight("lm_head.weight", (vocab, hidden), "head", split, "last")
    return (embedding, final) if is_tied else (embedding, final, head)
