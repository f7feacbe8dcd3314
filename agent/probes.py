"""What `doctor` looks at. Each probe leaves the machine as it was, and says how to get what it does not find."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import psutil

from nightsmith.record.digest import Contract
from nightsmith.record.errors import Refused
from nightsmith.record.offline import OFFLINE, child_environment
from nightsmith.record.settings_file import setting
from nightsmith.record.workspace import find_root
from nightsmith.sandboxes.base import Sandbox

PACKAGES = ("torch", "transformers", "trl", "peft", "mlflow", "langgraph", "duckdb", "optuna", "xllamacpp")
FREE_BYTES = 500 * 2**20
"""Free disk below which preflight refuses a study."""
TORCH_WAIT_S = 60.0
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "gpus": names}))
"""


class State(StrEnum):
    """What a probe came to."""

    FOUND = "found"
    """It is there and works, as far as was probed."""
    MISSING = "missing"
    """It is not there, or does not work."""


class Check(Contract):
    """One line of `nightsmith doctor`."""

    name: str
    """What was looked for."""
    state: State
    """Whether it was found."""
    detail: str
    """What exactly was found, or what went wrong."""
    needed: bool = False
    """Whether `nightsmith run` cannot do without it."""
    mend: str = ""
    """How to get it; empty where it was found."""


def found(name: str, detail: str, *, needed: bool = False) -> Check:
    """Something that is there."""
    return Check(name=name, state=State.FOUND, detail=detail, needed=needed)


def missing(name: str, detail: str, mend: str, *, needed: bool = False) -> Check:
    """Something that is not there."""
    return Check(name=name, state=State.MISSING, detail=detail, needed=needed, mend=mend)


def python() -> Check:
    """The interpreter that runs this."""
    return found("Python", f"{platform.python_version()} ({sys.executable})", needed=True)


def machine() -> Check:
    """Cores that this process may use, and memory."""
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free, total = memory.available / 2**30, memory.total / 2**30
    return found("machine", f"{cores} cores, {total:.0f} GiB memory ({free:.0f} free), {platform.machine()}")


def packages() -> Check:
    """Versions of the packages that do the work, without importing them."""
    versions: dict[str, str] = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    absent = [package for package in PACKAGES if package not in versions]
    told = ", ".join(f"{package} {version}" for package, version in versions.items())
    if not absent:
        return found("packages", told, needed=True)
    return missing("packages", f"without {', '.join(absent)}; {told}", "pip install nightsmith", needed=True)


def torch() -> Callable[[], Iterator[Check]]:
    """Start importing torch in a child: seconds. Returns what waits for its answer."""
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _TORCH],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment({}),
        )
    except OSError as error:
        refused = missing("torch", str(error), f"Let this user start {sys.executable}.", needed=True)
        return lambda: iter([refused])
    return lambda: _torch_checks(child)


def _torch_checks(child: subprocess.Popen[str]) -> Iterator[Check]:
    mend = "pip install 'torch==2.13.*' (a CPU build is enough), then `nightsmith doctor` again."
    errors = ""
    try:
        output, errors = child.communicate(timeout=TORCH_WAIT_S)
        said = json.loads(output)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        yield missing("torch", f"its import took more than {TORCH_WAIT_S:.0f} s", mend, needed=True)
        return
    except ValueError:
        yield missing("torch", _last_line(errors), mend, needed=True)
        return
    yield found("torch", f"{said['version']}, {said['threads']} CPU threads", needed=True)
    if said["gpus"]:
        yield found("accelerators", ", ".join(said["gpus"]))
    else:
        yield missing(
            "accelerators", "no CUDA device: training runs on the CPU", "An NVIDIA GPU, its driver, a CUDA torch."
        )


def engine() -> Check:
    """The engine that serves a larger planner than the embedded one."""
    path = shutil.which("vllm")
    mend = "pip install vllm on a machine with a GPU, then `nightsmith model serve small4`."
    return found("vllm", path) if path else missing("vllm", "not on PATH; only for a larger planner", mend)


def sandboxes() -> Iterator[Check]:
    """Each way to confine rewards and generated programs, after its self-test, and the one that will be used."""
    from nightsmith.sandboxes.choice import SANDBOXES, choose

    for sandbox in SANDBOXES.values():
        if sandbox.isolates:
            yield _sandbox(sandbox)
    try:
        yield found("sandbox", f"rewards and generated programs run in {choose().name}")
    except Refused as refused:
        yield missing("sandbox", "rewards and generated programs are refused", str(refused))


def _sandbox(sandbox: Sandbox) -> Check:
    from nightsmith.sandboxes.canary import probe

    lacking = sandbox.lacking()
    if lacking is not None:
        return missing(sandbox.name, lacking, sandbox.mend)
    result = probe(sandbox)
    return found(sandbox.name, result.told()) if result.holds else missing(sandbox.name, result.told(), sandbox.mend)


def places(workspace: Path | None) -> Iterator[Check]:
    """Whether workspace and cache can be written, and how much room there is."""
    yield _place("workspace", find_root(workspace), "another folder with --workspace or NIGHTSMITH_WORKSPACE")
    yield _place("cache", cache_path(), "another folder with NIGHTSMITH_CACHE")


def cache_path() -> Path:
    """Where the user's cache is, or would be made. Touches nothing."""
    own, xdg = os.environ.get("NIGHTSMITH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(xdg or Path.home() / ".cache") / "nightsmith"


def _place(name: str, path: Path, other: str) -> Check:
    """The nearest folder that exists is written to, and left as it was."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    told = str(path) if existing == path else f"{path} (will be made)"
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return missing(name, f"{told}: {error.strerror or error}", f"Give write permission, or {other}.", needed=True)
    room = f"{told}, {free / 2**30:.1f} GiB free"
    if free < FREE_BYTES:
        return missing(name, room, f"Free {FREE_BYTES >> 20} MiB of disk, or {other}.", needed=True)
    return found(name, room, needed=True)


def schedulers() -> Iterator[Check]:
    """What can start nights."""
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = ["systemctl", "--user", "show-environment"]
        if subprocess.run(asked, capture_output=True, timeout=3, check=False).returncode == 0:
            yield found("systemd user timers", "for `nightsmith night install`")
            return
    path = shutil.which("crontab")
    if path:
        yield found("crontab", f"{path}; for `nightsmith night install`")
        return
    mend = "apt install cron, or a systemd session; any other scheduler can call `nightsmith night run` as well."
    yield missing("scheduler", "neither a systemd user session nor crontab; only nights need one", mend)


def cluster() -> Iterator[Check]:
    """Where the settings send jobs to Slurm: whether it answers."""
    if setting("launcher") != "slurm":
        return
    try:
        asked = subprocess.run(["sinfo", "--summarize"], capture_output=True, text=True, timeout=30, check=False)
        said = asked.stderr if asked.returncode else asked.stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        asked, said = None, str(error)
    if asked is not None and asked.returncode == 0:
        yield found("Slurm", _last_line(said), needed=True)
    else:
        mend = 'Slurm\'s commands on PATH (Debian: apt install slurm-client), or launcher = "local" in nightsmith.toml.'
        yield missing("Slurm", _last_line(said), mend, needed=True)


def offline() -> Check:
    """What every job gets, so that nothing of it calls out."""
    switches = [name for name in OFFLINE if name.endswith("_OFFLINE")]
    return found("offline", f"every job runs with {', '.join(switches)}, and without telemetry")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
