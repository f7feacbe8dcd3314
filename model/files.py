"""A model folder as files: where its weights are, and their digest. Torch-free."""

import json
from pathlib import Path

from nightsmith.record.digest import canonical_json, file_digest, sha256
from nightsmith.record.errors import Damaged, NightsmithError

WEIGHTS = "model.safetensors"
"""Whole weights in one file."""
INDEX = "model.safetensors.index.json"
"""Names the files of sharded weights."""
ADAPTER = "adapter_model.safetensors"
"""LoRA weights, as PEFT writes them; `adapter_config.json` beside it names the base."""
ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's description of an adapter."""


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
"""One of them is there where a folder has a tokenizer."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Weights in forms that run code when they are read."""


class NoTokenizer(NightsmithError):
    """A model folder without a tokenizer."""

    def __init__(self, folder: Path) -> None:
        """Says which folder, and what would be there."""
        super().__init__(
            f"{folder} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is there. Save it with the model "
            "(`tokenizer.save_pretrained(folder)`)."
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer of its own."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold a folder's weights: an adapter's, else the whole model's, in the order of their names.

    Raises:
        NightsmithError: there are none, or only in a form that is refused.
        Damaged: the index of sharded weights cannot be read, or names a file that is absent.
    """
    for name in (ADAPTER, WEIGHTS):
        if (folder / name).is_file():
            return (folder / name,)
    if (folder / INDEX).is_file():
        return _shards(folder)
    if pickles := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
        raise NightsmithError(
            f"{folder} holds its weights as {pickles[0]}, a pickle file: reading one can run any code, so it is "
            "refused. Get the model in safetensors form, or convert it where you trust it: load it with transformers "
            "and `model.save_pretrained(folder)`."
        )
    raise NightsmithError(
        f"{folder} holds no weights: none of {ADAPTER}, {WEIGHTS} and {INDEX} is there. Give the folder of a model "
        "in safetensors form (`model.save_pretrained(folder)` writes one)."
    )


def _shards(folder: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        files = tuple(folder / Path(name).name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{folder / INDEX} is no index of weight files: {error!r}. Copy the model again.") from error
    if absent := [file.name for file in files if not file.is_file()]:
        raise Damaged(
            f"{len(absent)} of the {len(files)} weight files that {folder / INDEX} names are absent, "
            f"first {absent[0]}. Copy the model again."
        )
    return files


def weights_digest(folder: Path) -> str:
    """SHA-256 of a folder's weights; of several files, the digest of their digests by name."""
    files = weight_files(folder)
    if len(files) == 1:
        return file_digest(files[0])
    return sha256(canonical_json([[file.name, file_digest(file)] for file in files]))


def found_digest(folder: Path) -> str | None:
    """The digest of the weights that lie there now; None where they are absent."""
    try:
        return weights_digest(folder)
    except (NightsmithError, OSError):
        return None
