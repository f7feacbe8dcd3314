"""A recipe: the configuration that an external trainer reads, how it is started, and what it is made of. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from nightsmith.model.capacity.shapes import MATRIX_PARTS, ModelShape
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.external.layout import Layout
from nightsmith.trainer.post_training import DpoSpec, SftSpec

RECIPE, ROWS, OUTPUT = "recipe.yaml", "rows.parquet", "output"
"""Names in the folder that a recipe is for: itself, tokenised rows, what the trainer writes."""
WRAPPERS = frozenset({"mistral3"})
"""Model types of an image and text model whose text part is trained; the released Small 4 is one."""


Renderable = SftSpec | DpoSpec
"""Kinds of training that there are recipes of."""


class CannotExpress(NightsmithError):
    """A setting of the spec that the trainer has no word for; the text names it."""


@dataclass(frozen=True)
class Request:
    """What a recipe is rendered for."""

    spec: Renderable
    """What is trained how."""
    shape: ModelShape
    """The model's weights."""
    config: Mapping[str, Any]
    """Of the model's config.json what was read; empty where the model is not here yet."""
    base: Path
    """Folder that the trainer reads the model from."""
    folder: Path
    """Folder for the recipe, the rows and what the trainer writes."""
    layout: Layout
    """How it is laid over its GPUs."""
    on_gpu: bool
    """Whether it has any."""

    @property
    def rows(self) -> Path:
        """Tokenised and masked rows."""
        return self.folder / ROWS

    @property
    def output(self) -> Path:
        """What the trainer writes."""
        return self.folder / OUTPUT

    @property
    def model_title(self) -> str:
        """What a reader of the recipe should know of the folder of the model."""
        is_own = self.base == Path(self.spec.model.path)
        return "Model" if is_own else f"Model: {self.spec.model.path} by links, without YaRN's magnitude correction"

    @property
    def is_wrapper(self) -> bool:
        """Whether the text part of an image and text model is trained."""
        return self.config.get("model_type") in WRAPPERS


@dataclass(frozen=True)
class Section:
    """Entries of a recipe that belong together."""

    title: str
    """For a reader: a comment above them."""
    entries: Mapping[str, Any]
    """In order; those that are None are left out."""


@dataclass(frozen=True)
class Recipe:
    """What an external trainer is given."""

    title: str
    """Trainer and version that the recipe was written for."""
    sections: tuple[Section, ...]
    """The configuration."""
    argv: tuple[str, ...]
    """Command that trains on it; on several machines, on each."""
    env: Mapping[str, str]
    """Variables beside the offline, no-telemetry environment."""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as the trainer reads it."""
        return _present({name: value for each in self.sections for name, value in each.entries.items()})

    def text(self) -> str:
        """As YAML that a person can read; equal recipes give equal text."""
        head = [f"# {self.title}", "# " + " ".join(self.argv)]
        parts = [f"\n# {each.title}\n{_yaml(each.entries)}" for each in self.sections if _present(each.entries)]
        return "\n".join(head) + "\n" + "".join(parts)


def _present(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, at any depth."""
    kept = {name: value for name, value in entries.items() if value is not None}
    return {
        name: _present(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
        for name, value in kept.items()
    }


def _yaml(entries: Mapping[str, Any]) -> str:
    # PyYAML writes 1e-05 as 1.0e-05, which YAML 1.1 reads as a number; JSON's 1e-05 would be a string there.
    return yaml.safe_dump(_present(entries), sort_keys=False, width=1000, allow_unicode=True)


def adapted_blocks(shape: ModelShape) -> dict[str, list[str]]:
    """Linear layers that carry adapters, by the block within a layer that holds them; routed experts are left out."""
    blocks: dict[str, list[str]] = {}
    for path in _adapted_paths(shape):
        block, _, name = path.rpartition(".")
        blocks.setdefault(block, []).append(name)
    return blocks


def _adapted_paths(shape: ModelShape) -> list[str]:
    names = {
        weight.name.removesuffix(".weight")
        for kind in shape.kinds
        for weight in kind.weights
        if weight.is_matrix and weight.part in MATRIX_PARTS and weight.part != "experts"
    }
    return sorted(names)


def stacked_experts(shape: ModelShape) -> list[str]:
    """Expert weights, by their path within a layer; none where each expert has a weight of its own."""
    experts = [weight for kind in shape.kinds for weight in kind.weights if weight.part == "experts"]
    return sorted({weight.name for weight in experts}) if all(weight.stacked > 1 for weight in experts) else []


def router_paths(shape: ModelShape) -> list[str]:
    """Routers, by their path within a layer."""
    routers = (weight.name for kind in shape.kinds for weight in kind.weights if weight.part == "router")
    return sorted({name.rpartition(".")[0] for name in routers})


def whole_alpha(spec: Renderable, tool: str) -> int:
    """LoRA's alpha as an integer. Raises CannotExpress."""
    if spec.lora_alpha != int(spec.lora_alpha):
        raise CannotExpress(f"lora_alpha {spec.lora_alpha:g}: {tool} takes whole numbers only. Use one.")
    return int(spec.lora_alpha)


def quant_method(config: Mapping[str, Any]) -> str | None:
    """How a model's weights are quantised; None where they are not."""
    said: Any = config.get("quantization_config")
    return str(cast("dict[str, Any]", said).get("quant_method")) if isinstance(said, dict) else None


def require_weights_form(spec: Renderable, config: Mapping[str, Any], tool: str, *, dequantises: bool) -> None:
    """Refuse weights that a trainer cannot start from. Raises CannotExpress."""
    if config.get("model_type") == "small4":
        raise CannotExpress(
            f"model: {tool} does not know model_type 'small4', Nightsmith's own form of the architecture. Write it as "
            "a plain Mistral4 with `nightsmith export`, or use backend 'trl'."
        )
    quantised = quant_method(config)
    if quantised and not (dequantises and quantised == "fp8"):
        raise CannotExpress(
            f"model: its weights are quantised ({quantised}), and {tool} trains on unquantised ones. Use a copy in "
            "bfloat16 (of Small 4: axolotl-ai-co/Mistral-Small-4-119B-2603-BF16 on the hub)."
        )
    if quantised and spec.dev_suite is not None:
        raise CannotExpress(
            f"dev_suite: the model's weights are quantised ({quantised}), and the evaluation loads unquantised ones "
            "only. Leave dev_suite out, or use a copy in bfloat16."
        )
