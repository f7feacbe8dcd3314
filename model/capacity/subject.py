"""The model that is sized: one of the catalogue, or a folder with a config.json. Torch-free."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nightsmith.model.capacity.families import FAMILIES, shape_of
from nightsmith.model.capacity.fields import BadConfig
from nightsmith.model.capacity.published import PUBLISHED, Published, named, unknown
from nightsmith.model.capacity.shapes import Layer, ModelShape, Part, Weight
from nightsmith.model.catalogue import BUILT_IN, is_built_in, resolve
from nightsmith.model.files import weight_files
from nightsmith.model.headers import read_object, tensor_shapes
from nightsmith.record.errors import NightsmithError

_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Subject:
    """What is sized, and what is known of it."""

    name: str
    """The catalogue's name, or the folder's path."""
    title: str
    """For a reader."""
    shape: ModelShape
    """Its weights."""
    published: Published | None = None
    """The publisher's figures, where there are any."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""


def subject(name: str, *, cwd: Path) -> Subject:
    """The model of a name or of a folder.

    Args:
        name: of the catalogue (`small4`, `gpt-oss-120b`, …; spelling is forgiven), or the path of a model's folder.
        cwd: folder that a relative path starts from.

    Raises:
        UnknownModel: neither; the text lists near names.
        BadConfig: the folder's config.json cannot be read as one.
        NightsmithError: a file of the folder is damaged.
    """
    known = named(name)
    folder = (cwd / Path(name).expanduser()).absolute()
    if known is None and is_built_in(name):
        return replace(_of_folder(resolve(name, cwd=cwd)), name=BUILT_IN, title=BUILT_IN)
    if known is None and name.strip() and folder.is_dir():
        return _of_folder(resolve(name, cwd=cwd))
    if known is None:
        raise unknown(name, f"{folder} is not a folder, and the catalogue has no such name")
    entry = PUBLISHED[known]
    shape = shape_of(entry.config, known)
    assert shape is not None, known
    said = (f"{name!r} was taken for {known}.",) if name.strip().lower() in ("deepseek-v4", "deepseek v4") else ()
    return Subject(known, entry.title, shape, entry if entry.total else None, (*said, *filter(None, [entry.note])))


def _of_folder(folder: Path) -> Subject:
    adapter = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    base = Path(adapter) if isinstance(adapter, str) and Path(adapter).is_dir() else folder
    config = read_object(base / "config.json")
    if not config:
        raise BadConfig(f"{base / 'config.json'} is absent or holds no JSON object. Give the folder of a whole model.")
    shape = shape_of(config, str(base / "config.json"))
    notes = (f"Sized is the adapter's base, {base}.",) if base != folder else ()
    if shape is None:
        return Subject(str(folder), base.name, by_headers(base, config), notes=notes)
    return Subject(str(folder), base.name, shape, notes=(*notes, *_disagreement(base, shape)))


def _disagreement(folder: Path, shape: ModelShape) -> list[str]:
    """What the weight files hold, where it is not what the config says; nothing where there are none."""
    try:
        files = weight_files(folder)
    except NightsmithError:
        return ["There are no weights in this folder: sized by its config alone."]
    held = sum(math.prod(dims) for file in files for dims in tensor_shapes(file).values())
    expected = shape.count() + sum(extra.size for extra in shape.extras)
    return [] if held == expected else [f"Its files hold {held:,} values, its config describes {expected:,}."]


def by_headers(folder: Path, config: Mapping[str, Any]) -> ModelShape:
    """The shape of a model of another family, from the headers of its safetensors. Raises NightsmithError."""
    outer: list[Weight] = []
    layers: dict[int, list[Weight]] = {}
    for file in weight_files(folder):
        for name, dims in tensor_shapes(file).items():
            found = _LAYER.fullmatch(name)
            part = _part(name, dims)
            if found:
                layers.setdefault(int(found[1]), []).append(Weight(found[2], dims, part))
            else:
                outer.append(Weight(name, dims, part))
    kinds = list(dict.fromkeys(tuple(sorted(each, key=lambda weight: weight.name)) for each in layers.values()))
    pattern = tuple(kinds.index(tuple(sorted(layers[i], key=lambda weight: weight.name))) for i in sorted(layers))
    experts, top_k = _routing(config)
    has_experts = any(weight.part == "experts" for kind in kinds for weight in kind)
    unknown_parts = [
        f"the family {config.get('model_type')!r} is not known in closed form (known: {', '.join(sorted(FAMILIES))})",
        "key-value cache and operations of attention were not counted; only fsdp plans are offered",
    ]
    if has_experts and not (experts and top_k):
        unknown_parts.append("the config does not say how many experts a token passes: all are counted as active")
    return ModelShape(
        family=str(config.get("model_type", "unknown")),
        hidden_size=_number(config, "hidden_size", "n_embd", "d_model"),
        vocab_size=_number(config, "vocab_size"), max_len=_number(config, "max_position_embeddings"),
        outer=tuple(outer), kinds=tuple(Layer(kind, (), ()) for kind in kinds), pattern=pattern,
        num_experts=experts if top_k else 0, top_k=top_k if experts else 0, unknown=tuple(unknown_parts),
    )  # fmt: skip


def _part(name: str, dims: tuple[int, ...]) -> Part:
    """What a weight belongs to, by the words in its name."""
    if len(dims) < 2:
        return "norm"
    words: tuple[tuple[str, Part], ...] = (
        ("lm_head", "head"), ("shared_expert", "shared_experts"), ("expert", "experts"), ("router", "router"),
        ("vision", "vision"), ("attn", "attention"), ("attention", "attention"), ("embed", "embedding"),
        ("wte", "embedding"), ("wpe", "embedding"),
    )  # fmt: skip
    for word, part in words:
        if word in name:
            return part
    return "mlp"


def _routing(config: Mapping[str, Any]) -> tuple[int, int]:
    experts = _number(config, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return experts, _number(config, "num_experts_per_tok", "moe_topk", "moe_top_k", "num_experts_per_token")


def _number(config: Mapping[str, Any], *names: str) -> int:
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), 0)
