"""What a sandbox is given (SandboxSpec), what it is (Sandbox), how a program in it ended (Completed)."""

from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

from pydantic import Field, model_validator

from nightsmith.record.digest import Contract

MIB = 2**20


class Limits(Contract):
    """What a program may use. Each process inherits them; it cannot raise them."""

    memory_bytes: int = Field(default=1024 * MIB, ge=64 * MIB)
    """Address space of each process (RLIMIT_AS)."""
    cpu_s: int = Field(default=600, gt=0)
    """Processor seconds of each process over its whole life (RLIMIT_CPU)."""
    wall_s: float = Field(default=60.0, gt=0)
    """Wall-clock seconds of one `run`; then everything in the sandbox is killed. A Worker has a limit for each call."""
    file_bytes: int = Field(default=16 * MIB, ge=0)
    """Largest file that can be written (RLIMIT_FSIZE)."""
    tmp_bytes: int = Field(default=64 * MIB, ge=MIB)
    """Size of the private /tmp in memory. The Landlock jail has no /tmp."""
    open_files: int = Field(default=64, ge=8)
    """Open file descriptors of each process (RLIMIT_NOFILE)."""
    tasks: int = Field(default=1, gt=0, le=1024)
    """Processes and threads together. 1: neither a thread nor a process can be started (by a system-call filter)."""
    output_bytes: int = Field(default=MIB, gt=0)
    """Longest answer of one call, or output of one `run`; what writes more is killed."""


class SandboxSpec(Contract):
    """One sandbox: Python itself can be read, and nothing else that is not named here."""

    limits: Limits = Limits()
    """What a program may use."""
    read_only: tuple[str, ...] = ()
    """Absolute paths of files and folders that can be read, at the same place inside."""
    read_write: tuple[str, ...] = ()
    """Absolute paths of folders that can be written; each file up to `file_bytes`, their number is not limited."""
    python_path: tuple[str, ...] = ()
    """Folders of packages that can be imported, without a `nightsmith` in them; default: the standard library alone."""
    network: bool = False
    """Whether sockets work. Without them there is neither TCP nor UDP nor any other socket but a pair of one's own."""
    env: dict[str, str] = {}
    """The program's variables, beside locale, time zone and one thread for numerical libraries. None is inherited."""

    @model_validator(mode="after")
    def _require_paths_outside_workspaces(self) -> Self:
        for given in (*self.read_only, *self.read_write, *self.python_path):
            if not Path(given).is_absolute() or ".." in Path(given).parts:
                raise ValueError(f"{given!r} is not a plain absolute path")
            if (told := _shows(Path(given).resolve(), hides_sources=given in self.python_path)) is not None:
                raise ValueError(f"{given!r} would show {told} inside the sandbox; name only what the code needs")
        return self


def _shows(path: Path, *, hides_sources: bool) -> str | None:
    """What of a path nobody's code may see: a workspace, a whole home or this project."""
    if ".nightsmith" in path.parts or (path / ".nightsmith").exists():
        return "a workspace"
    if Path.home().is_relative_to(path):
        return "a whole home"
    if Path(__file__).resolve().is_relative_to(path) and not hides_sources:
        return "the code that judges"
    return None


class Ending(StrEnum):
    """How a program in a sandbox ended."""

    EXITED = "EXITED"
    """By itself, with an exit status; negative: by that signal."""
    TIMED_OUT = "TIMED_OUT"
    """Killed after `wall_s`."""
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    """Killed since it wrote more than `output_bytes`."""


class Completed(Contract):
    """One `run`, however it ended."""

    ending: Ending
    """How it ended."""
    exit_status: int | None
    """Its exit status; null where it was killed from outside."""
    output: bytes
    """What it wrote, standard error included, up to `output_bytes`."""
    wall_s: float
    """Seconds from start to end."""
    sandbox: str
    """Name of the backend."""


class Sandbox(Protocol):
    """A backend: it turns a spec and a command line into the command line that runs it confined."""

    @property
    def name(self) -> str:
        """Name under which it is recorded."""
        ...

    @property
    def isolates(self) -> bool:
        """Whether it keeps anything out of reach; the plain process does not."""
        ...

    @property
    def mend(self) -> str:
        """How to get it, or to make it work."""
        ...

    def lacking(self) -> str | None:
        """What this machine lacks for it; null: nothing that can be seen before it is started."""
        ...

    def command(self, spec: SandboxSpec, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command line to start. Raises NightsmithError where the backend cannot give what the spec asks for."""
        ...
