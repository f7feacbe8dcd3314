"""A small tokenizer of Small 4's kind: its control tokens, over 4,032 tokens trained on Python's library.

For Small 4 style models with a vocabulary of 4,096, in tests and small trainings of chats; byte-level presets have
`bytes_tokenizer`. Kept as Mistral's own tekken.json, from which transformers makes its tokenizer.
"""

from pathlib import Path
from typing import Any

from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

from nightsmith.model.chat import RESPONSE_TEMPLATE, chat_template

TEKKEN = Path(__file__).parent / "tokenizer" / "tekken.json"
"""Read by mistral-common as it is; written by examples/tokenizer/train.py."""
VOCABULARY = 4096
"""Tokens in all."""
NUM_CONTROL = 64
"""Ids below are control tokens, named or spare; Small 4's own tokenizer has 1,000 of them."""

_NAMED = {
    0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 5: "[AVAILABLE_TOOLS]", 6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]", 8: "[/TOOL_RESULTS]", 9: "[TOOL_CALLS]", 10: "[IMG]", 11: "<pad>", 12: "[IMG_BREAK]",
    13: "[IMG_END]", 14: "[PREFIX]", 15: "[MIDDLE]", 16: "[SUFFIX]", 17: "[SYSTEM_PROMPT]", 18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]",
    35: "[/THINK]", 36: "[MODEL_SETTINGS]", 37: "[/MODEL_SETTINGS]",
}  # fmt: skip
CONTROL_TOKENS = tuple(_NAMED.get(rank, f"<SPECIAL_{rank}>") for rank in range(NUM_CONTROL))
"""By id; Small 4's own where it has a name for it."""


def small4_tokenizer(tekken: Path = TEKKEN) -> Any:
    """A transformers tokenizer of a tekken.json with Small 4's chat template.

    Args:
        tekken: the file; the one that comes along has `VOCABULARY` tokens.
    """
    tokenizer: Any = convert_tekken_tokenizer(str(tekken), chat_template=chat_template())
    tokenizer.response_template = RESPONSE_TEMPLATE
    return tokenizer
