"""LoRA adapters in llama.cpp's GGUF form, so that the engine applies them to the quantised base as it is.

Source: llama.cpp, convert_lora_to_gguf.py and convert_hf_to_gguf.py (`LlamaModel.permute`).
"""

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from gguf import GGUFReader, GGUFWriter
from numpy.typing import NDArray

from nightsmith.record.errors import Damaged

TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Name in transformers -> name in GGUF, for the linear layers of a Llama block."""

_PEFT_NAMES = {gguf: name for name, gguf in TENSORS.items()}
_NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(.+)\.lora_(A|B)\.weight")


def permute_rows(weight: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """Reorder rows of Q or K from transformers' rotary layout (halves) to llama.cpp's (pairs). (heads x dim, in)."""
    rows, columns = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def unpermute_rows(weight: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """The inverse of `permute_rows`: from llama.cpp's rotary layout to transformers'. (heads x dim, in)."""
    rows, columns = weight.shape
    return weight.reshape(num_heads, rows // num_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_lora_gguf(
    path: Path, adapters: dict[str, NDArray[Any]], *, alpha: float, num_heads: int, num_key_value_heads: int
) -> None:
    """Write `adapters` (peft's names, float arrays) as float16 to `path`, atomically.

    The engine scales each product by alpha / rank, as peft does. Only rows of lora_b are permuted: the input side of
    Q and K is the same in both layouts. Raises Damaged for a name that is no linear layer of a Llama block.
    """
    heads = {"attn_q": num_heads, "attn_k": num_key_value_heads}
    partial = path.with_name(path.name + ".partial")
    writer = GGUFWriter(partial, arch="llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, array in sorted(adapters.items()):
        tensor, side = _gguf_name(name)
        if side == "b" and tensor.split(".")[-1] in heads:
            array = permute_rows(array, heads[tensor.split(".")[-1]])
        writer.add_tensor(f"{tensor}.weight.lora_{side}", np.ascontiguousarray(array, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _gguf_name(name: str) -> tuple[str, str]:
    found = _NAME.fullmatch(name)
    if not found or found[2] not in TENSORS:
        raise Damaged(f"{name!r} is no LoRA matrix of a Llama linear layer. Layers: {', '.join(TENSORS)}.")
    return f"blk.{found[1]}.{TENSORS[found[2]]}", cast(str, found[3]).lower()


def read_lora_gguf(path: Path, *, num_heads: int, num_key_value_heads: int) -> dict[str, NDArray[np.float32]]:
    """What `write_lora_gguf` wrote, under peft's names, float32. Raises Damaged for a file that is no such adapter."""
    heads = {"attn_q": num_heads, "attn_k": num_key_value_heads}
    adapters: dict[str, NDArray[np.float32]] = {}
    for tensor in GGUFReader(path).tensors:
        name, layer = _peft_name(tensor.name, path)
        array = np.array(tensor.data, dtype=np.float32)
        adapters[name] = unpermute_rows(array, heads[layer]) if name.endswith("B.weight") and layer in heads else array
    return adapters


def _peft_name(name: str, path: Path) -> tuple[str, str]:
    """Peft's name of a tensor, and its layer in GGUF."""
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight\.lora_(a|b)", name)
    if not found or found[2] not in _PEFT_NAMES:
        raise Damaged(f"{path} holds {name!r}, which is no LoRA matrix. Give an adapter that write_lora_gguf wrote.")
    side = cast(str, found[3]).upper()
    return f"base_model.model.model.layers.{found[1]}.{_PEFT_NAMES[found[2]]}.lora_{side}.weight", cast(str, found[2])
