"""A model as the shapes of its weights: what is counted, sharded and sized. No tensor is made. Torch-free."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Part = Literal["embedding", "head", "attention", "router", "experts", "shared_experts", "mlp", "norm", "vision"]
"""What a weight belongs to."""
MATRIX_PARTS: frozenset[Part] = frozenset({"attention", "experts", "shared_experts", "mlp"})
"""Parts whose matrices are quantised by QLoRA and may carry adapters."""


@dataclass(frozen=True)
class Weight:
    """One parameter tensor."""

    name: str
    """As transformers names it, from its layer on; outside layers from the model on."""
    shape: tuple[int, ...]
    """Whole, before any sharding."""
    part: Part
    """What it belongs to."""
    tp_dim: int | None = None
    """Dimension that tensor parallelism splits; None: every rank keeps the whole."""
    stage: Literal["first", "last", "ends", "every"] = "every"
    """Pipeline stages that keep a weight outside the layers; `ends`: the first and the last."""

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether tokens are multiplied with it."""
        is_wide = len(self.shape) > 1 and not self.name.endswith("bias")
        return is_wide and self.part not in ("embedding", "norm", "vision")

    @property
    def in_and_out(self) -> int:
        """Inputs plus outputs of a matrix, of one expert where experts are stacked."""
        return sum(self.shape[-2:])

    @property
    def stacked(self) -> int:
        """Matrices that are stacked in it: experts, else one."""
        return self.shape[0] if len(self.shape) == 3 else 1


@dataclass(frozen=True)
class Span:
    """Positions that attention keeps or looks at: one every `stride` tokens, the last `limit` of them at most."""

    width: int
    """Values per position: kept in the cache, or multiplied and added by one query (all heads)."""
    stride: int = 1
    """Tokens that one position stands for."""
    limit: int | None = None
    """Most positions; None: all."""

    def kept(self, seq_len: int) -> int:
        """Values in the cache after `seq_len` tokens."""
        entries = seq_len // self.stride
        return self.width * (entries if self.limit is None else min(entries, self.limit))

    def mean(self, seq_len: int) -> float:
        """Multiplications per token, averaged over the positions of a causal sequence of `seq_len` tokens."""
        entries = seq_len / self.stride
        if self.limit is None or entries <= self.limit:
            return self.width * entries / 2
        return self.width * (self.limit - self.limit**2 / (2 * entries))


@dataclass(frozen=True)
class Layer:
    """One kind of transformer layer."""

    weights: tuple[Weight, ...]
    """Its parameters."""
    cache: tuple[Span, ...]
    """What it keeps of earlier tokens when it generates."""
    scores: tuple[Span, ...]
    """What a query is multiplied with."""


@dataclass(frozen=True)
class ModelShape:
    """A causal language model: its layers, what lies around them, and how transformers can shard it."""

    family: str
    """`model_type` of its config."""
    hidden_size: int
    """Width of the residual stream."""
    vocab_size: int
    """Tokens."""
    max_len: int
    """Longest input that its config names, in tokens; 0 where it names none."""
    outer: tuple[Weight, ...]
    """Embedding, final norm, head; a tied head is absent."""
    kinds: tuple[Layer, ...]
    """Kinds of layers."""
    pattern: tuple[int, ...]
    """Kind of each layer, in order."""
    num_experts: int = 0
    """Routed experts a layer; 0: dense."""
    top_k: int = 0
    """Routed experts per token."""
    residual_streams: int = 1
    """Copies of the residual stream that hyper-connections carry."""
    kv_shards: int = 1
    """Ranks among which tensor parallelism can split the cache (key-value heads; 1 for a shared latent)."""
    has_ep: bool = False
    """Whether transformers has an expert-parallel plan for the family."""
    has_tp: bool = False
    """Whether transformers has a tensor-parallel plan for the family's layers."""
    has_pp: bool = False
    """Whether transformers can split the family's layers into stages."""
    extras: tuple[Weight, ...] = ()
    """Parameters of the published model that training its text part leaves out: vision tower, projector."""
    unknown: tuple[str, ...] = ()
    """What could not be derived, in words."""

    @property
    def num_layers(self) -> int:
        """Transformer layers."""
        return len(self.pattern)

    @property
    def is_tied(self) -> bool:
        """Whether the head is the embedding."""
        return not any(weight.part == "head" for weight in self.outer)

    def weights(self) -> Iterable[tuple[Weight, int]]:
        """Every parameter of the text model, those of like layers once, and how many times it is there."""
        yield from ((weight, 1) for weight in self.outer)
        for kind, times in Counter(self.pattern).items():
            yield from ((weight, times) for weight in self.kinds[kind].weights)

    def named(self) -> dict[str, Weight]:
        """Every parameter of the text model by its name in transformers' state dict."""
        layers = {
            f"model.layers.{index}.{weight.name}": weight
            for index, kind in enumerate(self.pattern)
            for weight in self.kinds[kind].weights
        }
        return {weight.name: weight for weight in self.outer} | layers

    def active(self, weight: Weight) -> int:
        """Values of a weight that one token is multiplied with (or looked up in)."""
        is_routed = weight.part == "experts" and self.num_experts
        return weight.size * self.top_k // self.num_experts if is_routed else weight.size

    def passed(self, weight: Weight) -> float:
        """Matrices of a weight that one token passes: top-k of stacked experts, their share where each lies alone."""
        if weight.part != "experts" or not self.num_experts:
            return 1
        return weight.stacked * self.top_k / self.num_experts

    def count(self, *parts: Part) -> int:
        """Parameters of the text model in some parts; in all where none is named."""
        return sum(weight.size * times for weight, times in self.weights() if not parts or weight.part in parts)

    def count_active(self, *parts: Part) -> int:
        """The same, of routed experts only those that a token passes."""
        return sum(self.active(weight) * times for weight, times in self.weights() if not parts or weight.part in parts)
