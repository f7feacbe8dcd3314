"""What the planner's server and its clients share: its config, and the state file where it says how to reach it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ServerConfig:
    """What one server process serves."""

    model: str
    """Path of the base weights, GGUF."""
    adapter: str | None
    """Path of the LoRA adapter, GGUF; null: the base alone."""
    state: str
    """State file to publish; `<state>.lock` is held for the life of the process."""
    threads: int
    context: int = 4096
    """Tokens of prompt and answer together."""
    idle_s: float = 600.0
    """Seconds without a request, or a touch of the state file, after which the process leaves."""


def publish(path: Path, content: dict[str, Any]) -> None:
    """Write JSON by rename, readable by the user alone from its first byte on."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
    partial.replace(path)
