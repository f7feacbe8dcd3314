"""The byte-level vocabulary of the Small 4 presets as a transformers tokenizer: a token's id is its byte."""

from typing import Any, cast

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from nightsmith.model.presets import BYTE_VOCABULARY

SPECIAL = ("<|bos|>", "<|eos|>", "<|pad|>")
"""Tokens of the ids BOS, EOS and PAD."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer whose ids are byte values, then BOS, EOS and PAD."""
    letters = _letters()
    bpe = BPE(vocab={letters[byte]: byte for byte in range(256)}, merges=[])
    tokenizer = Tokenizer(bpe)
    cast(Any, tokenizer).pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    cast(Any, tokenizer).decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    bos, eos, pad = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def is_byte_level(tokenizer: Any) -> bool:
    """Whether a tokenizer's ids are byte values (also after it was saved and loaded)."""
    probe = "aZ é\n"
    return len(tokenizer) == BYTE_VOCABULARY and tokenizer(probe, add_special_tokens=False)["input_ids"] == list(
        probe.encode()
    )


def _letters() -> list[str]:
    """The character that stands for each byte in byte-level BPE (Radford et al. 2019, `bytes_to_unicode` of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    codes = {byte: byte for byte in printable} | {byte: 256 + i for i, byte in enumerate(others)}
    return [chr(codes[byte]) for byte in range(256)]
