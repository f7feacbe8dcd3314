"""Model folders of some ten thousand random weights, one a family, with a tokenizer of bytes.

torch and transformers are imported by the functions: benches that only start processes do without.
"""

import json
from pathlib import Path
from typing import Any

FAMILIES = ("llama", "qwen3_moe", "gpt_oss", "small4")
EOS = "</s>"
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""A chat template with an end of answers only."""
SHAPE: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"head_dim": 12, "num_experts_per_tok": 2}


def write_model(folder: Path, family: str = "llama", *, chat_template: str | None = None) -> Path:
    """Write config, weights and tokenizer. Small 4 is byte-level by itself and has no tokenizer file."""
    import torch

    torch.manual_seed(0)
    if family == "small4":
        from nightsmith.model.presets import PRESETS
        from nightsmith.model.small4 import build

        build(PRESETS["nano"], seed=0).save_pretrained(folder)
        return folder
    _whole_model(family).save_pretrained(folder)
    write_tokenizer(folder, chat_template)
    return folder


def _whole_model(family: str) -> Any:
    import transformers as hf

    if family == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=258, tie_word_embeddings=True, **SHAPE))
    if family == "qwen3_moe":
        config = hf.Qwen3MoeConfig(vocab_size=258, num_experts=4, moe_intermediate_size=32, **EXPERTS, **SHAPE)
        return hf.Qwen3MoeForCausalLM(config)
    assert family == "gpt_oss", f"no family {family!r}; there are {', '.join(FAMILIES)}"
    shape = SHAPE | {"intermediate_size": 32}
    return hf.GptOssForCausalLM(
        hf.GptOssConfig(vocab_size=258, num_local_experts=4, sliding_window=16, **EXPERTS, **shape)
    )


def write_tokenizer(folder: Path, chat_template: str | None = None) -> None:
    """Two special tokens and 256 bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", EOS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", EOS])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": EOS}
    if chat_template is not None:
        named["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
