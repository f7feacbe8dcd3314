"""Presets of the Small 4 architecture (DESIGN §2): byte-level, MLA attention, softmax router, one shared expert."""

from typing import Literal

from pydantic import Field

from nightsmith.record.digest import Contract

BYTE_VOCABULARY = 259
"""256 bytes, then bos, eos and pad."""
BOS, EOS, PAD = 256, 257, 258

BalanceMode = Literal["none", "aux", "bias"]
"""How experts are kept evenly used: not at all, by a load-balancing loss, or by a selection bias (and the loss where
its coefficient is above 0)."""

PresetName = Literal["nano", "micro", "mini", "small4"]


class Architecture(Contract):
    """Shape of a Small 4 style mixture-of-experts language model."""

    hidden_size: int = Field(gt=0)
    """Model dimension."""
    num_layers: int = Field(gt=0)
    """Transformer layers; each has a mixture-of-experts block."""
    num_heads: int = Field(gt=0)
    """Attention heads (multi-head latent attention)."""
    expert_size: int = Field(gt=0)
    """Hidden dimension of one expert."""
    num_experts: int = Field(gt=0)
    """Routed experts a layer; one shared expert comes on top."""
    top_k: int = Field(gt=0)
    """Routed experts per token."""
    q_rank: int = Field(gt=0)
    """Rank of the query compression."""
    kv_rank: int = Field(gt=0)
    """Rank of the key-value compression (the latent that is cached)."""
    nope_head_dim: int = Field(gt=0)
    """Head dimensions without position."""
    rope_head_dim: int = Field(gt=0)
    """Head dimensions with rotary position."""
    value_head_dim: int = Field(gt=0)
    """Head dimension of the values."""
    vocab_size: int = Field(default=BYTE_VOCABULARY, gt=0)
    """Tokens; 259 is byte-level."""
    seq_len: int = Field(gt=0)
    """Training window in tokens."""
    batch_size: int = Field(gt=0)
    """Sequences per optimizer step."""


def _preset(**shape: int) -> Architecture:
    return Architecture.model_validate(shape)


PRESETS: dict[str, Architecture] = {
    "nano": _preset(
        hidden_size=64, num_layers=2, num_heads=4, expert_size=32, num_experts=8, top_k=2, q_rank=32, kv_rank=32,
        nope_head_dim=8, rope_head_dim=8, value_head_dim=16, seq_len=128, batch_size=8,
    ),
    "micro": _preset(
        hidden_size=128, num_layers=4, num_heads=4, expert_size=96, num_experts=16, top_k=2, q_rank=64, kv_rank=64,
        nope_head_dim=16, rope_head_dim=16, value_head_dim=32, seq_len=256, batch_size=8,
    ),
    "mini": _preset(
        hidden_size=256, num_layers=6, num_heads=8, expert_size=160, num_experts=32, top_k=4, q_rank=128, kv_rank=128,
        nope_head_dim=16, rope_head_dim=16, value_head_dim=32, seq_len=256, batch_size=8,
    ),
    "small4": _preset(
        hidden_size=4096, num_layers=36, num_heads=32, expert_size=2048, num_experts=128, top_k=4, q_rank=1024,
        kv_rank=256, nope_head_dim=64, rope_head_dim=64, value_head_dim=128, vocab_size=131072, seq_len=4096,
        batch_size=8,
    ),
}  # fmt: skip


def balance_mode(named: BalanceMode | None, router_aux_loss_coef: float) -> BalanceMode:
    """The mode that is meant: where none is named, `aux` for a coefficient above 0, else `none`.

    Raises ValueError where mode and coefficient contradict each other.
    """
    if named == "aux" and not router_aux_loss_coef:
        raise ValueError("balance_mode is 'aux' with router_aux_loss_coef 0: set it above 0, e.g. to 0.01")
    if named == "none" and router_aux_loss_coef:
        raise ValueError(
            f"balance_mode is 'none' with router_aux_loss_coef {router_aux_loss_coef:g}: set the coefficient to 0, or "
            "the mode to 'aux'"
        )
    return named or ("aux" if router_aux_loss_coef else "none")
