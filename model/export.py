"""A checkpoint's model, or its adapter alone, for others to load: what is asked, what came of it. Torch-free.

A child process writes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from nightsmith.model.pull import PLANNER
from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import child_environment

Form = Literal["safetensors", "gguf", "gguf-lora"]
Precision = Literal["float32", "bfloat16", "float16", "q8_0"]
FORMS: tuple[Form, ...] = get_args(Form)
PRECISIONS: dict[Form, tuple[Precision, ...]] = {
    "safetensors": ("float32", "bfloat16", "float16"),
    "gguf": ("float16", "bfloat16", "float32", "q8_0"),
    "gguf-lora": ("float16",),
}
"""What each form can hold; of the GGUF forms the first is the default."""


class ExportRequest(Contract):
    """What is written."""

    checkpoint: str
    """Absolute path of a model or adapter folder."""
    folder: str
    """Absolute path of an empty folder to write into."""
    form: Form
    """`safetensors`: as transformers saves models; `gguf`: as llama.cpp loads them; `gguf-lora`: an adapter alone, as
    llama.cpp applies it to its base."""
    precision: Precision | None = None
    """Form of the weights. null: as the checkpoint holds them, float32 where adapters were added in (safetensors);
    float16 (GGUF)."""
    name: str
    """The model's name."""


class Exported(Contract):
    """What was written."""

    model_type: str
    """Kind of model, as in its config.json."""
    num_parameters: int
    """Weights that were written."""
    precision: Precision
    """Form of the weights."""
    evaluated_as: Precision
    """Form in which evaluations compute with them; where it differs, figures were measured before rounding."""
    files: dict[str, str]
    """Name -> SHA-256."""


class ExportFailed(NightsmithError):
    """The model cannot be written, or not in that form."""


def understood(form: str, precision: str | None) -> tuple[Form, Precision | None]:
    """Form and precision as asked for. Raises ExportFailed with what is possible."""
    if form not in FORMS:
        raise ExportFailed(f"There is no format {form!r}. Possible: {', '.join(FORMS)}.")
    known = form
    if precision is not None and precision not in PRECISIONS[known]:
        raise ExportFailed(f"{form} has no precision {precision!r}. Possible: {', '.join(PRECISIONS[known])}.")
    return known, precision


def export(request: ExportRequest) -> Exported:
    """Write a model by a child process. Raises ExportFailed with what was wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "nightsmith.model.export_worker", request.model_dump_json()],
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    answer = _last_object(done.stdout)
    if done.returncode == 0 and "files" in answer:
        return Exported.model_validate(answer)
    told = answer.get("error") or (done.stderr.strip().splitlines() or ["it was killed; was there enough memory?"])[-1]
    raise ExportFailed(f"{request.checkpoint} could not be exported: {told}")


def _last_object(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    try:
        found: object = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def licence_of(folder: Path) -> str | None:
    """The licence that a model folder names in its README's front matter; None where it names none."""
    if folder.name == f"base-{PLANNER.file_sha256[:16]}":  # the model that comes along, unpacked: it has no README
        return "apache-2.0"
    try:
        lines = (folder / "README.md").read_text(errors="replace").splitlines()
    except OSError:
        return None
    if not lines or lines[0].strip() != "---":
        return None
    matter = lines[1 : next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), 1)]
    named = [line.partition(":")[2].strip().strip("\"'") for line in matter if line.startswith("license:")]
    return next((name for name in named if name and name != "other"), None)
