"""The folder that an external trainer reads the model from: the model's own, or one of links with a mended config.

Released Small 4 asks in its config for YaRN's magnitude correction of attention scores. vLLM, which serves it as it was
trained, does not apply it; transformers from 5.15 on and NeMo AutoModel 0.7 do. Two entries switch it off in both:
`mscale_all_dim` 0 and `attention_factor` 1 (see docs/model.md). Torch-free.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from nightsmith.model.headers import read_object

BASE = "base"
"""Name of the folder of links."""
UNCORRECTED = {"mscale_all_dim": 0.0, "attention_factor": 1.0}


def stage(model: Path, folder: Path) -> Path:
    """The folder to train from. Raises NightsmithError where config.json is damaged."""
    config = read_object(model / "config.json")
    mended = mend(config)
    if mended == config:
        return model
    staged = folder / BASE
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for file in model.iterdir():
        if file.name != "config.json":
            (staged / file.name).symlink_to(file.resolve())
    (staged / "config.json").write_text(json.dumps(mended, indent=1))
    return staged


def staged_path(config: Mapping[str, Any], model: Path, folder: Path) -> Path:
    """Where `stage` will have it."""
    return model if mend(config) == config else folder / BASE


def mend(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the magnitude correction, where it is a Mistral4's; any other as it is."""
    if config.get("model_type") == "mistral4":
        return _uncorrected(config)
    text = cast("dict[str, Any]", config.get("text_config") or {})
    if text.get("model_type") == "mistral4":
        return {**config, "text_config": _uncorrected(text)}
    return dict(config)


def _uncorrected(config: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in ("rope_parameters", "rope_scaling") if isinstance(config.get(name), dict)]
    asked = [name for name in names if config[name].get("mscale_all_dim")]
    return {**config, **{name: {**config[name], **UNCORRECTED} for name in asked}}
