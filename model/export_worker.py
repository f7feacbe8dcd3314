"""`python -m nightsmith.model.export_worker REQUEST_AS_JSON`: writes a checkpoint's whole model, or its adapter.

Prints an Exported as JSON, or {"error": why} for a failure that a person can mend.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from nightsmith.model import gguf_adapter, gguf_model
from nightsmith.model.export import PRECISIONS, Exported, ExportFailed, ExportRequest, Precision
from nightsmith.model.files import ADAPTER_CONFIG
from nightsmith.model.gguf_check import require_same_tokens
from nightsmith.model.load import load, load_tokenizer, read_config
from nightsmith.model.small4 import Small4ForCausalLM, save_as_mistral4
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "q8_0": 34 / 32}
"""Bytes a weight."""
EVALUATED_AS: Precision = "float32"
"""Trainings and evaluations compute in it on a CPU."""


def export(request: ExportRequest) -> Exported:
    """Write the model into the request's folder.

    Raises:
        NightsmithError: the checkpoint cannot be loaded, the form cannot hold it, or the disk is too full.
    """
    checkpoint, folder = Path(request.checkpoint), Path(request.folder)
    if request.form == "gguf-lora":
        return _exported(folder, gguf_adapter.TYPE, gguf_adapter.export_adapter(checkpoint, folder), "float16")
    precision: Precision = request.precision or (
        PRECISIONS["gguf"][0] if request.form == "gguf" else stored_precision(checkpoint)
    )
    tokenizer = load_tokenizer(checkpoint)
    # GGUF is rounded from float32 by its own code; elsewhere a model that is kept as it is stays so bit by bit.
    model = load(checkpoint, dtype=torch.float32 if request.form == "gguf" else getattr(torch, precision))
    num_parameters = sum(weight.numel() for weight in model.parameters())
    _require_space(folder, num_parameters * BYTES[precision])
    try:
        FORMS[request.form](model, tokenizer, folder, precision, request.name)
    except (OSError, SafetensorError) as error:
        raise ExportFailed(f"writing stopped: {error}. Is the disk full?") from error
    return _exported(folder, model.config.model_type, num_parameters, precision)


def _exported(folder: Path, model_type: str, num_parameters: int, precision: Precision) -> Exported:
    return Exported(
        model_type=model_type,
        num_parameters=num_parameters,
        precision=precision,
        evaluated_as=EVALUATED_AS,
        files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
    )


def stored_precision(checkpoint: Path) -> Precision:
    """What the checkpoint's config says its weights are; float32 for adapters, which are added in that precision."""
    if (checkpoint / ADAPTER_CONFIG).is_file():
        return EVALUATED_AS
    config = read_config(checkpoint)
    named = config.get("dtype") or config.get("torch_dtype")
    return named if named in PRECISIONS["safetensors"] else EVALUATED_AS


def _write_safetensors(model: Any, tokenizer: Any, folder: Path, _precision: Precision, _name: str) -> None:
    """As transformers saves models; Small 4 as plain Mistral4, which others know."""
    if isinstance(model, Small4ForCausalLM):
        save_as_mistral4(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_gguf(model: Any, tokenizer: Any, folder: Path, precision: Precision, name: str) -> None:
    path = folder / f"{name}-{precision}.gguf"
    gguf_model.write_gguf(path, model, tokenizer, precision=precision, name=name)
    require_same_tokens(path, tokenizer)


FORMS = {"safetensors": _write_safetensors, "gguf": _write_gguf}


def _require_space(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ExportFailed(
            f"the model takes {needed / 2**30:.2f} GiB, and where it is to be written {free / 2**30:.2f} GiB are free. "
            "Make room, or choose another place or precision."
        )


def main() -> int:
    """Do what the argument asks."""
    try:
        exported = export(ExportRequest.model_validate_json(sys.argv[1]))
    except (NightsmithError, OSError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(exported.model_dump_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
