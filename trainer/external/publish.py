"""What an external trainer left, as the checkpoint of a job: whole files, under names that our loader knows.

Torch-free.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.files import ADAPTER, ADAPTER_CONFIG, weight_files
from nightsmith.model.headers import Place, read_object, rename_tensors, require_whole, tensor_places
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.external.recipe import Renderable

KEPT = (
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*",
    "special_tokens_map.json", "chat_template*", "vocab.*", "merges.txt", "tekken.json", "added_tokens.json",
    ADAPTER_CONFIG, "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""Files of a model, among what else a trainer writes beside them."""
_PEFT = "base_model.model."
_ADAPTED = re.compile(r"(?:.*\.)?layers\.\d+\.(.+?)(?:\.base_layer)*\.lora_(?:A|B)\.weight")
_BLOCK = 2**20


def publish(final: Path, target: Path, spec: Renderable, shape: ModelShape, mark: Callable[[Path, bool], None]) -> None:
    """Make a folder of the trained model appear, whole or not at all.

    Args:
        final: folder in Hugging Face's form; its files are linked, not moved.
        target: the folder to be.
        spec: what was trained.
        shape: weights of the model that it was trained from.
        mark: called with the folder, before it appears, and whether training changed any weight.

    Raises:
        NightsmithError: weights are missing, cut off, or not of that model.
    """
    for file in weight_files(final):
        require_whole(file)
    aside = target.with_name(f".{target.name}.tmp")
    for leftover in (aside, target):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir()
    for file in final.iterdir():
        if file.is_file() and any(fnmatch(file.name, pattern) for pattern in KEPT):
            _link(file, aside / file.name)
    if spec.adaptation == "full":
        changed = _differ(tensors(aside), tensors(Path(spec.model.path)))
    else:
        changed = _adapter(final, aside, spec, shape)
    mark(aside, changed)
    aside.rename(target)


def tensors(folder: Path) -> dict[str, tuple[Path, Place]]:
    """Where every tensor of a model folder lies, under its name in the text part."""
    found: dict[str, tuple[Path, Place]] = {}
    for file in weight_files(folder):
        found |= {_text_name(name): (file, place) for name, place in tensor_places(file).items()}
    return found


def _adapter(final: Path, aside: Path, spec: Renderable, shape: ModelShape) -> bool:
    """Name adapters as our loader has the model, and say what they belong to."""
    names = {name: _PEFT + _text_name(name.removeprefix(_PEFT)) for name in tensor_places(final / ADAPTER)}
    paths = {_path(name, final) for name in names.values()}
    known = {weight.name.removesuffix(".weight") for kind in shape.kinds for weight in kind.weights}
    if unknown := sorted(path for path in paths if not any(_within(path, name) for name in known)):
        raise NightsmithError(
            f"The adapter in {final} is on {', '.join(unknown[:3])}, which layers of {spec.model.path} do not have. "
            "The trainer is another version than the recipe was written for."
        )
    (aside / ADAPTER).unlink()
    rename_tensors(final / ADAPTER, aside / ADAPTER, names)
    config = read_object(final / ADAPTER_CONFIG)
    own = {"base_model_name_or_path": spec.model.path, "target_modules": sorted(_modules(paths, config))}
    (aside / ADAPTER_CONFIG).unlink()
    (aside / ADAPTER_CONFIG).write_text(json.dumps(config | own, indent=1))
    places = tensor_places(aside / ADAPTER)
    return any(_is_filled(aside / ADAPTER, place) for name, place in places.items() if ".lora_B." in name)


def _modules(paths: set[str], config: Mapping[str, Any]) -> set[str]:
    """Adapted modules by their path within a layer; stacked experts are named as parameters beside them."""
    stacked: list[str] = config.get("target_parameters") or []
    return {path for path in paths if not any(_within(name, path) for name in stacked)}


def _path(name: str, final: Path) -> str:
    match = _ADAPTED.fullmatch(name)
    if match is None:
        raise NightsmithError(f"{final / ADAPTER} holds {name!r}, which is no LoRA weight of a layer. Train again.")
    return match[1]


def _within(path: str, whole: str) -> bool:
    return path == whole or path.startswith(f"{whole}.") or whole.startswith(f"{path}.")


def _text_name(name: str) -> str:
    """Of an image and text model the text part's own name, as `model.load` maps it."""
    bare = name.removeprefix("language_model.") if name.startswith("language_model.") else name
    return bare.replace("model.language_model.", "model.", 1)


def _differ(found: Mapping[str, tuple[Path, Place]], base: Mapping[str, tuple[Path, Place]]) -> bool:
    """Whether any weight is another one than before; weights in other numbers than before count as changed."""
    for name, (file, place) in found.items():
        before = base.get(name)
        if before is None or before[1].dtype != place.dtype:
            return True
        if any(new != old for new, old in zip(_blocks(file, place), _blocks(*before), strict=False)):
            return True
    return False


def _is_filled(file: Path, place: Place) -> bool:
    return any(any(block) for block in _blocks(file, place))


def _blocks(file: Path, place: Place) -> Iterator[bytes]:
    with file.open("rb") as content:
        content.seek(place.start)
        left = place.end - place.start
        while left > 0:
            block = content.read(min(left, _BLOCK))
            left -= len(block)
            yield block


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
