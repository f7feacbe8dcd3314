"""The environment of child processes: nothing calls out, and nothing that is not needed is handed down."""

import os
from collections.abc import Mapping
from pathlib import Path

OFFLINE: dict[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_DISABLED": "true",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No network look-ups, no telemetry."""

_HANDED_DOWN = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "XDG_CACHE_HOME")
_HANDED_DOWN_PREFIXES = ("LC_", "NIGHTSMITH_", "CUDA_", "NVIDIA_", "NCCL_")
_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a child process gets: locale, paths and own settings of this process, OFFLINE, then `extra`. No secrets.

    `PYTHONPATH` names the folder that holds this package, so that a child of an uninstalled checkout finds it.
    """
    present = {name: value for name, value in os.environ.items() if _is_handed_down(name)}
    package_root = str(Path(__file__).resolve().parents[2])
    return {**present, **OFFLINE, "PYTHONPATH": package_root, **extra}


def _is_handed_down(name: str) -> bool:
    allowed = name in _HANDED_DOWN or name.startswith(_HANDED_DOWN_PREFIXES)
    return allowed and not name.endswith(_SECRET_ENDINGS)
