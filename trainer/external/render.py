"""From a spec to the recipe of its external trainer, without running anything. Torch-free."""

from pathlib import Path

from nightsmith.model.capacity.subject import Subject
from nightsmith.model.headers import read_object
from nightsmith.trainer.external.layout import Site, lay_out
from nightsmith.trainer.external.recipe import CannotExpress, Recipe, Renderable, Request
from nightsmith.trainer.external.staging import staged_path
from nightsmith.trainer.external.tools import TOOLS
from nightsmith.trainer.post_training import PostTraining

RELEASED = {
    "model_type": "mistral3",
    "text_config": {"model_type": "mistral4", "rope_parameters": {"mscale_all_dim": 1.0}},
}
"""Of released Small 4's config.json what a recipe depends on; stands in while the model is not here."""


def render(spec: PostTraining, model: Subject, site: Site, folder: Path) -> Recipe:
    """The recipe of a spec.

    Args:
        spec: what is trained how.
        model: its model, or one of the catalogue while that is not here.
        site: GPUs that it gets.
        folder: the run's folder; nothing is written into it.

    Raises:
        CannotExpress: a setting that the trainer has no word for, by name.
        DoesNotFit, BadLayout: no layout over these GPUs, with what would fit.
    """
    sft = require_renderable(spec)
    return TOOLS[spec.backend].recipe(request_of(sft, model, site, folder))


def require_renderable(spec: PostTraining) -> Renderable:
    """The spec, if there is a recipe for its kind of training. Raises CannotExpress."""
    if spec.backend not in TOOLS:
        raise CannotExpress(
            f"backend {spec.backend!r} needs no recipe: it trains within the job. Known external trainers: "
            f"{', '.join(TOOLS)}."
        )
    if not isinstance(spec, Renderable):
        raise CannotExpress(
            f"kind {getattr(spec, 'kind', '?')!r}: {spec.backend} has recipes for sft (and axolotl for dpo) alone. Use "
            "backend 'trl'."
        )
    return spec


def request_of(spec: Renderable, model: Subject, site: Site, folder: Path) -> Request:
    """What a recipe is rendered for. Raises CannotExpress, DoesNotFit, BadLayout."""
    tool = TOOLS[spec.backend]
    if tool.needs_gpu and not site.gpus:
        raise CannotExpress(f"{tool.name} trains on GPUs only, and the run gets none. Give it some (--gpus).")
    path = Path(spec.model.path)
    if (path / "adapter_config.json").is_file():
        raise CannotExpress(
            f"model: {path} is an adapter, and {tool.name} starts from whole models. Merge it with `nightsmith export`."
        )
    config = read_object(path / "config.json") or (RELEASED if model.name == "small4" else {})
    tool.refuse(spec, model.shape, config)
    layout = lay_out(model.name, model.shape, spec, site, tool.why_not(spec, model.shape))
    return Request(
        spec=spec, shape=model.shape, config=config, base=staged_path(config, path, folder), folder=folder,
        layout=layout, on_gpu=site.gpus > 0,
    )  # fmt: skip


def command(recipe: Recipe) -> str:
    """As a shell takes it, variables first."""
    words = [f"{name}={value}" for name, value in recipe.env.items()]
    return " ".join([*words, *recipe.argv])
