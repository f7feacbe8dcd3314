"""Whole models in llama.cpp's GGUF form: dense Llama-like ones with byte-level BPE tokenizers.

Source: llama.cpp, convert_hf_to_gguf.py (tensor layout, tokenizer fields). The tokenizers' pre-tokenization is told by
name; `gguf_check` checks it in the engine, since a wrong name is not seen otherwise.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from nightsmith.model.lora_gguf import permute_rows
from nightsmith.record.errors import NightsmithError

PRECISIONS = {
    "float32": gguf.GGMLQuantizationType.F32,
    "bfloat16": gguf.GGMLQuantizationType.BF16,
    "float16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
"""Forms of the weight matrices; vectors stay float32."""
FILE_TYPES = {
    "float32": gguf.LlamaFileType.ALL_F32,
    "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
    "float16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
"""The same, as llama.cpp counts them."""
ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "mistral": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}
"""Model types that can be written -> llama.cpp's architecture."""
_PERMUTED = (gguf.MODEL_ARCH.LLAMA,)
"""Architectures whose rotary embedding pairs neighbours, where transformers pairs halves."""


def require_possible(config: Any, tokenizer: Any) -> None:
    """Raises NightsmithError for a model that cannot be written, with what can be done instead."""
    scaling = (config.rope_parameters or {}).get("rope_type", "default")
    reasons = {
        f"models of type {config.model_type!r} cannot": config.model_type not in ARCHITECTURES,
        f"rotary embeddings of type {scaling!r} cannot": scaling != "default",
        "biases in attention or feed-forward layers cannot": getattr(config, "attention_bias", False)
        or getattr(config, "mlp_bias", False),
        "a sliding window cannot": getattr(config, "sliding_window", None) is not None,
        "a tokenizer that is no byte-level BPE cannot": _bpe(tokenizer) is None,
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise NightsmithError(
            f"This model cannot be written as GGUF here: {found[0]}. Possible are dense models of the types "
            f"{', '.join(ARCHITECTURES)} with plain rotary embeddings and a byte-level BPE tokenizer. Export it with "
            "--format safetensors, and where llama.cpp knows the architecture convert that folder with its "
            "convert_hf_to_gguf.py."
        )


def write_gguf(path: Path, model: Any, tokenizer: Any, *, precision: str, name: str) -> None:
    """Write a model, possible as `require_possible` says, with its tokenizer and chat template.

    Raises:
        NightsmithError: the model cannot be written in this form.
    """
    require_possible(model.config, tokenizer)
    architecture = ARCHITECTURES[model.config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[precision])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, model.config)
    _add_tokenizer(writer, tokenizer, model.config.vocab_size)
    for tensor, weight in _tensors(model, architecture):
        kind = PRECISIONS[precision] if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        if weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = gguf.GGMLQuantizationType.F16
        writer.add_tensor(tensor, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, config: Any) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _tensors(model: Any, architecture: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """GGUF name and float32 values of each weight; a tied output is left out, as llama.cpp takes the embedding."""
    config = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = weight.float().numpy()
        layer = name.split(".")[-2]
        if layer in heads and architecture in _PERMUTED:
            array = permute_rows(array, heads[layer])
        renamed = names.get_name(name, try_suffixes=(".weight",))
        if renamed is None:
            raise NightsmithError(f"llama.cpp has no name for the tensor {name}. Export with --format safetensors.")
        yield renamed, np.ascontiguousarray(array)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, vocab_size: int) -> None:
    bpe: dict[str, Any] = _bpe(tokenizer) or {}
    added = tokenizer.added_tokens_decoder
    by_id = {i: token for token, i in bpe["model"]["vocab"].items()} | {i: t.content for i, t in added.items()}
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(bpe))
    writer.add_token_list(tokens)
    writer.add_token_types([_token_type(i, by_id, added) for i in range(vocab_size)])
    writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in bpe["model"]["merges"]])
    writer.add_add_bos_token(tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id])
    writer.add_add_space_prefix(False)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _token_type(token_id: int, known: dict[int, str], added: dict[int, Any]) -> gguf.TokenType:
    if token_id not in known:
        return gguf.TokenType.UNUSED
    if token_id not in added:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added[token_id].special else gguf.TokenType.USER_DEFINED


def _bpe(tokenizer: Any) -> dict[str, Any] | None:
    """The content of tokenizer.json where it is a byte-level BPE."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content: dict[str, Any] | None = json.loads(backend.to_str()) if backend is not None else None
    if content is None or content["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(content["pre_tokenizer"]):
        return None
    return content


def pre_tokenizer_name(content: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer.json cuts text into words, by what sets its families apart."""
    pre = json.dumps(content["pre_tokenizer"])
    if re.search(r'"Digits".*"individual_digits": true', pre):
        return "smollm"
    if r"\\p{Lu}" in pre:
        return "tekken"
    if r"\\p{N}{1,3}" in pre:
        return "llama-bpe"
    return "qwen2" if r"\\p{N}" in pre and '"Regex"' in pre else "gpt-2"
