"""A GGUF base model as plain bf16 safetensors in the cache, for training; made once for each file content."""

import os
import shutil
import tempfile
from pathlib import Path

from nightsmith.model.pull import cache_dir, planner_gguf
from nightsmith.record.digest import file_digest


def dequantised(gguf: Path) -> Path:
    """Folder with config.json, model.safetensors (bf16) and tokenizer.json of `gguf`; some 25 s at the first call.

    bf16 holds the 4-bit values to 3 digits, finer than their quantisation steps.
    """
    folder = cache_dir() / f"base-{file_digest(gguf)[:16]}"
    if not folder.is_dir():
        partial = Path(tempfile.mkdtemp(prefix=".base-", dir=folder.parent))
        _convert(gguf, partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first; its folder is as good
            shutil.rmtree(partial)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


if __name__ == "__main__":
    print(dequantised(planner_gguf()))
