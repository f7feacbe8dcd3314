"""`nightsmith train SPEC --render`: the recipe of an external trainer, printed and not run."""

import json
from pathlib import Path

from nightsmith.agent.model_plan import device
from nightsmith.model.capacity.subject import Subject, subject
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.external.layout import Site
from nightsmith.trainer.external.process import find
from nightsmith.trainer.external.recipe import CannotExpress
from nightsmith.trainer.external.render import command, render, require_renderable
from nightsmith.trainer.external.tools import TOOLS
from nightsmith.trainer.post_training import PostTraining
from nightsmith.trainer.spec import RunSpec

FOLDER = "RUN"
"""Stands in a printed recipe for the run's folder, which a job has when it starts."""


def show(spec: RunSpec, *, gpus: int, gpu: str, gpus_per_node: int, like: str, as_json: bool) -> int:
    """Print the recipe. Raises NightsmithError where there is none, or nothing fits."""
    if not isinstance(spec, PostTraining):
        raise CannotExpress(f"kind {spec.kind!r} trains no existing model, so there is no recipe of it.")
    site = Site(gpus, device(gpu) if gpus else None, min(gpus_per_node, gpus) or 1)
    recipe = render(spec, _model(spec, like), site, Path(FOLDER))
    if as_json:
        print(json.dumps({"command": command(recipe), "config": recipe.config, "text": recipe.text()}, indent=1))
    else:
        print(recipe.text(), end="")
    return 0


def require_trainer(spec: RunSpec) -> None:
    """Raise NightsmithError before a job is started whose external trainer is not here, or has no recipe for it."""
    if isinstance(spec, PostTraining) and spec.backend in TOOLS:
        require_renderable(spec)
        tool = TOOLS[spec.backend]
        find(tool.executable, tool.package, tool.version)


def _model(spec: PostTraining, like: str) -> Subject:
    if like:
        return subject(like, cwd=Path.cwd())
    if not Path(spec.model.path).is_dir():
        raise NightsmithError(
            f"The model {spec.model.path} is not here. Give the name of one like it (--like small4) to see its recipe "
            "beforehand."
        )
    return subject(spec.model.path, cwd=Path.cwd())
