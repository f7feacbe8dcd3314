"""An external trainer as a child of the job: found on PATH, on a leash, its output in files that are read as they grow.

Torch-free.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import child_environment

STDOUT, STDERR = "trainer.stdout.log", "trainer.stderr.log"
TAIL_BYTES = 65_536
POLL_S = 0.05
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR = re.compile(r"^(?:\[rank\d+\]:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Killed)\b.*)")
_LAUNCHERS = ("ChildFailedError", "CalledProcessError", "torch.distributed.elastic", "SystemExit")
SHOWN_LINES = 6


class NoTrainer(NightsmithError):
    """An external trainer is not on this machine; the text says how to get it."""


def find(executable: str, package: str, version: str) -> Path:
    """The executable on PATH. Raises NoTrainer."""
    found = shutil.which(executable)
    if found is None:
        raise NoTrainer(
            f"{executable} is not on PATH. Install it in an environment of its own, as it needs other versions of "
            f"torch and transformers (`python -m venv ~/{executable} && ~/{executable}/bin/pip install "
            f"{package}=={version}`), and start Nightsmith with PATH=~/{executable}/bin:$PATH."
        )
    return Path(found)


def installed_version(executable: Path, package: str) -> str | None:
    """The version beside an executable in its environment, without running it; None where that does not say."""
    name = package.replace("-", "_")
    places = executable.resolve().parent.parent.glob(f"lib/python3*/site-packages/{name}-*.dist-info")
    return next((place.name.removeprefix(f"{name}-").removesuffix(".dist-info") for place in places), None)


def environment(executable: Path, extra: Mapping[str, str], cache: Path) -> dict[str, str]:
    """What an external trainer gets: no network, no telemetry, no code of ours, its own environment's commands first.

    Args:
        executable: where it was found; `torchrun` and `python` must come from there too.
        extra: the recipe's variables.
        cache: folder for what `datasets` makes of the rows.
    """
    present = child_environment({})
    del present["PYTHONPATH"]  # holds our packages, whose names (`tools`, `evals`) others have as well
    present.pop("VIRTUAL_ENV", None)
    leased = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    own = {
        "PATH": f"{executable.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "WANDB_MODE": "disabled",
        "HF_DATASETS_CACHE": str(cache),
    }
    return {**present, **leased, **own, **extra}


class Child:
    """A running trainer. It is killed when this object's process ends, however that ends."""

    def __init__(self, argv: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        """Start it in a folder, where its output goes to two files. Raises OSError."""
        with (folder / STDOUT).open("ab") as stdout, (folder / STDERR).open("ab") as stderr:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py")), *argv],
                cwd=folder, env=dict(env), stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, start_new_session=True,
            )  # fmt: skip

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._keeper.poll()

    def terminate(self) -> None:
        """Send SIGTERM to its process group."""
        with suppress(BrokenPipeError):
            assert self._keeper.stdin is not None
            self._keeper.stdin.write(b"T")
            self._keeper.stdin.flush()

    def kill(self) -> None:
        """Kill its process group and wait."""
        with suppress(BrokenPipeError):
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
        self._keeper.wait()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        until = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_S)
        return True


class Tail:
    """The lines of files that grow, from where they end now; a progress bar's carriage return ends a line too."""

    def __init__(self, *files: Path) -> None:
        """Files need not be there yet."""
        self._places = {file: file.stat().st_size if file.is_file() else 0 for file in files}
        self._begun = dict.fromkeys(files, "")

    def lines(self) -> list[str]:
        """Whole lines that were written since the last call, file by file."""
        found: list[str] = []
        for file, place in self._places.items():
            if not file.is_file():
                continue
            with file.open("rb") as content:
                content.seek(place)
                fresh = content.read()
            self._places[file] = place + len(fresh)
            *whole, self._begun[file] = re.split(r"[\r\n]", self._begun[file] + fresh.decode(errors="replace"))
            found += whole
        return [_ESCAPES.sub("", line) for line in found if line]


def last_error(*files: Path) -> str:
    """The error that a trainer ended with: its exception's line and what follows it, else its last lines."""
    lines = [line for file in files for line in _tail(file)]
    for index in reversed(range(len(lines))):
        match = _ERROR.match(lines[index])
        if match and not any(word in lines[index] for word in _LAUNCHERS):
            return "\n".join([match[1], *lines[index + 1 : index + SHOWN_LINES]])
    return "\n".join(lines[-SHOWN_LINES:])


def _tail(file: Path) -> list[str]:
    if not file.is_file():
        return []
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - TAIL_BYTES))
        text = content.read().decode(errors="replace")
    return [line for line in re.split(r"[\r\n]", _ESCAPES.sub("", text)) if line.strip()]
