"""Llama for LoRA training on CPUs: frozen bf16 weights, float32 adapters, no gradient that nobody needs.

transformers with peft is the oracle in the tests; this graph does the same arithmetic with fewer memory passes:

* projections that read the same input are one product (q|k|v, gate|up), and so are their adapters;
* a frozen projection and its adapter are one autograd node that stores its input and the rank-sized product only;
* the common beginning of all prompts of a batch is computed once, and gradients flow into it from every row;
* logits exist only where there is a completion token, and only inside the loss.
"""

# T tokens of all streams, N rows, L row length, P shared prefix length, S = P + L keys,
# D model dim, O output dim, R rank, H query heads, K key-value heads, G = H / K, E head dim, V vocabulary

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig

from nightsmith.model.files import ADAPTER, ADAPTER_CONFIG
from nightsmith.model.lora_kernels import CompletionLoss, Kernels, LoraLinear

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GROUPS = {"qkv": PROJECTIONS[:3], "o": ("o_proj",), "gate_up": ("gate_proj", "up_proj"), "down": ("down_proj",)}


@dataclass(frozen=True)
class LoraShape:
    """Size of the adapters. `first_layer`: layers below it carry none, and no gradient reaches them."""

    rank: int = 16
    alpha: float = 32.0
    first_layer: int = 0

    @property
    def scale(self) -> float:
        """Factor on the product of the two adapter matrices (peft: alpha / r)."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Batch:
    """Rows of equal padded length behind one shared prefix.

    Attributes:
        prefix_ids_P: tokens that every row starts with; may be empty.
        ids_NL: the rest of each row, padded at the right with any token.
        targets_NL: the token that follows each position where it belongs to a completion, else -100.
        weights_NL: float32, how much each target counts in the loss; None: 1.
    """

    prefix_ids_P: Tensor
    ids_NL: Tensor
    targets_NL: Tensor
    weights_NL: Tensor | None = None


class LoraLlama(nn.Module):
    """A frozen Llama with one adapter on every linear layer; the adapters are its only parameters."""

    def __init__(self, config: LlamaConfig, weights: dict[str, Tensor], shape: LoraShape, kernels: Kernels) -> None:
        """Take `weights` under transformers' names. Adapters start as peft starts them: A Kaiming-uniform, B zero."""
        super().__init__()
        self.config, self.shape, self.kernels = config, shape, kernels
        self.eps = config.rms_norm_eps
        self.key_heads = config.num_key_value_heads or config.num_attention_heads
        self.group = config.num_attention_heads // self.key_heads
        self.head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
        self.embed_VD = weights["model.embed_tokens.weight"].bfloat16()
        self.head_VD = self.embed_VD if config.tie_word_embeddings else weights["lm_head.weight"].bfloat16()
        self.final_norm = weights["model.norm.weight"].bfloat16()
        self.frozen = [self._fuse(weights, i) for i in range(config.num_hidden_layers)]
        self.adapters = nn.ParameterDict()
        for layer in range(shape.first_layer, config.num_hidden_layers):
            for name in PROJECTIONS:
                out_dim, in_dim = weights[_weight_name(layer, name)].shape
                a_RD = nn.init.kaiming_uniform_(torch.empty(shape.rank, in_dim), a=5**0.5)
                self.adapters[f"{layer}-{name}-A"] = nn.Parameter(a_RD)
                self.adapters[f"{layer}-{name}-B"] = nn.Parameter(torch.zeros(out_dim, shape.rank))

    @staticmethod
    def _fuse(weights: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
        fused = {g: torch.cat([weights[_weight_name(layer, n)] for n in names]) for g, names in GROUPS.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            fused[norm] = weights[f"model.layers.{layer}.{norm}.weight"]
        return {name: tensor.bfloat16().contiguous() for name, tensor in fused.items()}

    def forward(self, batch: Batch) -> Tensor:
        """Weighted sum of the completion tokens' cross-entropy in nats, float32 scalar."""
        prefix_len, (rows, length) = len(batch.prefix_ids_P), batch.ids_NL.shape
        x_TD = self.embed_VD[torch.cat((batch.prefix_ids_P, batch.ids_NL.flatten()))]
        positions_L = torch.arange(prefix_len, prefix_len + length)
        tables = _rope_tables(self.config, torch.cat((torch.arange(prefix_len), positions_L.repeat(rows))))
        split = _Split(self.kernels, rows, length, prefix_len, self.key_heads, self.group, self.head_dim)
        for layer in range(self.config.num_hidden_layers):
            with torch.set_grad_enabled(torch.is_grad_enabled() and layer >= self.shape.first_layer):
                x_TD = self._layer(layer, x_TD, tables, split)
        targets = batch.targets_NL.flatten()
        kept = (targets != -100).nonzero()[:, 0]
        hidden_TD = self.kernels.rms_norm(x_TD[prefix_len + kept], self.final_norm, self.eps)
        weights = torch.ones(targets.shape) if batch.weights_NL is None else batch.weights_NL.flatten()
        return CompletionLoss.apply(hidden_TD, self.head_VD, targets[kept], weights[kept])  # type: ignore[no-any-return]

    def _layer(self, layer: int, x_TD: Tensor, tables: tuple[Tensor, Tensor], split: "_Split") -> Tensor:
        frozen = self.frozen[layer]
        normed = self.kernels.rms_norm(x_TD, frozen["input_layernorm"], self.eps)
        attended = split.attention(self._linear(layer, "qkv", normed), *tables)
        x_TD = x_TD + self._linear(layer, "o", attended)
        normed = self.kernels.rms_norm(x_TD, frozen["post_attention_layernorm"], self.eps)
        return x_TD + self._linear(layer, "down", self.kernels.swiglu(self._linear(layer, "gate_up", normed)))

    def _linear(self, layer: int, group: str, x_TD: Tensor) -> Tensor:
        weight_OD = self.frozen[layer][group]
        if layer < self.shape.first_layer:
            return x_TD @ weight_OD.T
        pairs = [(self.adapters[f"{layer}-{n}-A"], self.adapters[f"{layer}-{n}-B"]) for n in GROUPS[group]]
        a_RD = torch.cat([a for a, _ in pairs]).bfloat16()
        b_OR = (torch.block_diag(*[b for _, b in pairs]) * self.shape.scale).bfloat16()
        return LoraLinear.apply(x_TD, weight_OD, a_RD, b_OR)  # type: ignore[no-any-return]

    def load_peft_state(self, state: dict[str, Tensor]) -> None:
        """Take adapters back from `peft_state`'s names; a missing or surplus one raises KeyError."""
        own = {_peft_name(key): parameter for key, parameter in self.adapters.items()}
        if own.keys() != state.keys():
            raise KeyError(f"Adapters differ: {sorted(own.keys() ^ state.keys())[:4]} are on one side only.")
        for name, parameter in own.items():
            parameter.data.copy_(state[name])

    @property
    def num_frozen(self) -> int:
        """Weights that are not trained, a tied output counted once."""
        tied = self.head_VD is self.embed_VD
        loose = [self.embed_VD, self.final_norm] + ([] if tied else [self.head_VD])
        return sum(w.numel() for w in (*loose, *(w for layer in self.frozen for w in layer.values())))

    def save_pretrained(self, folder: Path) -> None:
        """Write the adapters as PEFT does."""
        save_file(self.peft_state(), folder / ADAPTER)
        # peft's own LoraConfig writes the same, after three seconds of imports; a test reads this file with peft.
        described = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.shape.rank,
            "lora_alpha": self.shape.alpha,
            "target_modules": list(PROJECTIONS),
            "layers_to_transform": list(range(self.shape.first_layer, self.config.num_hidden_layers)),
            "bias": "none",
        }
        (folder / ADAPTER_CONFIG).write_text(json.dumps(described, indent=2))

    def peft_state(self) -> dict[str, Tensor]:
        """Adapters under peft's names, float32."""
        return {_peft_name(key): p.detach().clone().contiguous() for key, p in self.adapters.items()}


@dataclass(frozen=True)
class _Split:
    """How the flat tokens divide into the shared prefix and the rows, for attention only."""

    kernels: Kernels
    rows: int
    length: int
    prefix_len: int
    key_heads: int
    group: int
    head_dim: int

    def attention(self, qkv_TO: Tensor, cos_T1E: Tensor, sin_T1E: Tensor) -> Tensor:
        """Causal attention of the prefix to itself and of each row to prefix and itself, (tokens, heads x head dim)."""
        heads = self.key_heads * self.group
        qkv = qkv_TO.unflatten(-1, (heads + 2 * self.key_heads, self.head_dim))
        rotated = self.kernels.rotate(qkv[:, : heads + self.key_heads], cos_T1E, sin_T1E)
        q, k, v = rotated[:, :heads], rotated[:, heads:], qkv[:, heads + self.key_heads :]
        at = self.prefix_len
        k_rows, v_rows = self._rows(k[at:]), self._rows(v[at:])
        if not at:
            return self._attend(q, k_rows, v_rows, self.rows)
        k_prefix, v_prefix = k[None, :at].transpose(1, 2), v[None, :at].transpose(1, 2)
        k_rows = torch.cat((k_prefix.expand(self.rows, -1, -1, -1), k_rows), dim=2)
        v_rows = torch.cat((v_prefix.expand(self.rows, -1, -1, -1), v_rows), dim=2)
        return torch.cat((self._attend(q[:at], k_prefix, v_prefix, 1), self._attend(q[at:], k_rows, v_rows, self.rows)))

    def _rows(self, kv_TKE: Tensor) -> Tensor:
        return kv_TKE.unflatten(0, (self.rows, self.length)).transpose(1, 2)

    def _attend(self, q_THE: Tensor, k_NKSE: Tensor, v_NKSE: Tensor, rows: int) -> Tensor:
        length = len(q_THE) // rows
        q_NKGLE = q_THE.view(rows, length, self.key_heads, self.group, self.head_dim).permute(0, 2, 3, 1, 4)
        mask_QS = _causal_mask(length, k_NKSE.shape[2]).repeat(self.group, 1)
        q_NQE = q_NKGLE.reshape(rows * self.key_heads, -1, self.head_dim)
        out_NQE = self.kernels.attend(q_NQE, k_NKSE.flatten(0, 1), v_NKSE.flatten(0, 1), mask_QS)
        return out_NQE.view(rows, -1, length, self.head_dim).transpose(1, 2).reshape(len(q_THE), -1)


def _causal_mask(length: int, keys: int) -> Tensor:
    mask = torch.full((length, keys), float("-inf"), dtype=torch.bfloat16)
    return mask.triu(1 + keys - length)


def _rope_tables(config: LlamaConfig, positions_T: Tensor) -> tuple[Tensor, Tensor]:
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    theta = float(cast(dict[str, Any], config.rope_parameters)["rope_theta"])
    inverse = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles_T1E = torch.outer(positions_T.float(), inverse).repeat(1, 2)[:, None]
    return angles_T1E.cos().bfloat16(), angles_T1E.sin().bfloat16()


def _weight_name(layer: int, name: str) -> str:
    part = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
    return f"model.layers.{layer}.{part}.{name}.weight"


def _peft_name(key: str) -> str:
    layer, name, side = key.split("-")
    return f"base_model.model.{_weight_name(int(layer), name).removesuffix('.weight')}.lora_{side}.weight"


def load_lora_llama(folder: Path, shape: LoraShape, kernels: Kernels) -> LoraLlama:
    """Build from a transformers checkpoint folder (config.json, model.safetensors) of a Llama."""
    return LoraLlama(LlamaConfig.from_pretrained(folder), load_file(folder / "model.safetensors"), shape, kernels)
