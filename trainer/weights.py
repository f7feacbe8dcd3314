"""What the weights in run folders take, and taking them away; result files, events and logs stay. Torch-free."""

import shutil
from pathlib import Path

from nightsmith.trainer.jobrows import JobRow
from nightsmith.trainer.spec import RunStatus

_FOLDERS = ("checkpoint-*", ".checkpoint-*", "model", ".model*", "trainer")
"""Where runners keep weights: pre-training by step, TRL's jobs the final ones and those to resume from."""
_GONE = ".removed-"


def held(row: JobRow) -> list[Path]:
    """Folders with weights of a job, and those that were being removed."""
    found = (path for pattern in (*_FOLDERS, f"{_GONE}*") for path in Path(row.launch.workdir).glob(pattern))
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def superfluous(row: JobRow) -> list[Path]:
    """Those that a job has besides its final checkpoint, once it has finished: no attempt will resume from them."""
    result = row.result
    if result is None or result.status is not RunStatus.FINISHED or result.checkpoint is None:
        return []
    final = Path(result.checkpoint)
    return [path for path in held(row) if final.is_dir() and path.resolve() != final.resolve()]


def num_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def set_aside(folder: Path) -> Path:
    """Take a folder out of everybody's sight at once; returns what is left to delete."""
    if folder.name.startswith(_GONE):
        return folder
    gone = folder.with_name(f"{_GONE}{folder.name.lstrip('.')}")
    delete(gone)
    return folder.rename(gone)


def delete(folder: Path) -> None:
    """Delete a folder; where that stops half-way, `held` still finds the rest."""
    if folder.exists():
        shutil.rmtree(folder)
