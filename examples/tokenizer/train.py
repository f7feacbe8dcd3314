"""`python examples/tokenizer/train.py` writes model/tokenizer/tekken.json, trained on the running Python's library.

A byte-level BPE in Mistral's tekken format, version 15: the control tokens have the ids of Small 4's own tokenizer, so
that templates, parsers and serving code meet here what they meet there. Written as tekken.json (mistral-common) and
tokenizer.json with its chat template (transformers).
"""

import base64
import json
import sysconfig
from importlib.resources import files
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from nightsmith.model.chat import EFFORTS
from nightsmith.model.small4_tokenizer import CONTROL_TOKENS, NUM_CONTROL, TEKKEN, VOCABULARY

NUM_BYTES = 256


def main() -> None:
    """Train, and write the folder's files anew."""
    pattern = tekken_pattern()
    content = tekken(train(texts(), pattern, VOCABULARY - NUM_CONTROL), pattern)
    TEKKEN.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def tekken_pattern() -> str:
    """How Tekken cuts text into words, from a tokenizer that mistral-common brings along."""
    known = files("mistral_common") / "data" / "tekken_240911.json"
    return json.loads(known.read_text())["config"]["pattern"]


def texts() -> list[str]:
    """The standard library's modules without its tests; among them are the manual's help topics, which are prose."""
    library = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"}
    modules = [path for path in sorted(library.rglob("*.py")) if not left_out & set(path.relative_to(library).parts)]
    return [path.read_text(errors="replace") for path in modules]


def train(texts: list[str], pattern: str, size: int) -> list[bytes]:
    """Tokens by rank: all bytes, then what merging gave, first merge first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, max_token_length=24)
    tokenizer.train_from_iterator(texts, trainer)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merged = [to_bytes(token) for token, _ in by_id if len(token) > 1]
    return [*(bytes([byte]) for byte in range(NUM_BYTES)), *merged]


def to_bytes(token: str) -> bytes:
    """The bytes that a byte-level token's letters stand for."""
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    return bytes(letters[letter] for letter in token)


def tekken(ranks: list[bytes], pattern: str) -> dict[str, object]:
    """The content of tekken.json."""
    return {
        "config": {
            "pattern": pattern,
            "num_vocab_tokens": len(ranks),
            "default_vocab_size": VOCABULARY,
            "default_num_special_tokens": NUM_CONTROL,
            "version": "v15",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": readable(token)}
            for rank, token in enumerate(ranks)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(CONTROL_TOKENS)
        ],
        "model_settings_builder": {
            "reasoning_effort": {"type": "enum", "accepts_none": True, "default": EFFORTS[0], "values": list(EFFORTS)}
        },
    }


def readable(token: bytes) -> str | None:
    """A token's text; None where it is no whole text."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None


if __name__ == "__main__":
    main()
