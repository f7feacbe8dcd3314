"""A GGUF file in the engine that will serve it: does it cut text into the tokens that the model was trained with."""

import secrets
from pathlib import Path
from typing import Any

import httpx

from nightsmith.model.server_state import ServerConfig
from nightsmith.model.serving import start_engine
from nightsmith.record.errors import NightsmithError

PROBE = "Hello  world!\n\n\tdef f(x1234): return 'naïve' # 日本語 😀 don't I'LL 3.14159\r\n"
"""White space, numbers, contractions and scripts: where tokenizers of different families part."""


def require_same_tokens(path: Path, tokenizer: Any) -> None:
    """Load the file into llama.cpp, and let it tokenise a probe.

    Raises:
        NightsmithError: other tokens came out than the model's own tokenizer gives, or the file cannot be loaded.
    """
    told = tokenise(path, PROBE)
    if told != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        raise NightsmithError(
            "llama.cpp would cut text into other tokens than the model's own tokenizer, so the GGUF file would be "
            "wrong; nothing was kept. Export with --format safetensors, and convert that folder with llama.cpp's own "
            "convert_hf_to_gguf.py, which knows more tokenizers."
        )


def tokenise(path: Path, text: str) -> list[int]:
    """The engine's tokens of a text, control tokens not added."""
    return ask(path, "/tokenize", {"content": text, "add_special": False})["tokens"]


def ask(path: Path, what: str, content: dict[str, Any]) -> dict[str, Any]:
    """One request to an engine that holds the file, on a loopback port behind a random token."""
    token = secrets.token_hex(16)
    try:
        engine = start_engine(ServerConfig(model=str(path), adapter=None, state="", threads=1, context=512), token)
    except RuntimeError as error:
        raise NightsmithError(f"llama.cpp does not load the GGUF file that was written: {error}.") from error
    answer = httpx.post(
        engine.listening_address + what, json=content, headers={"Authorization": f"Bearer {token}"}, timeout=120
    )
    answer.raise_for_status()
    return answer.json()
