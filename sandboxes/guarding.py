"""The guard's plan, and the command line that starts it."""

from functools import cache
from pathlib import Path
from typing import Any

from nightsmith.record.digest import Contract
from nightsmith.sandboxes.base import Limits
from nightsmith.sandboxes.runtime import ISOLATED


class Domain(Contract):
    """A Landlock domain."""

    handled: tuple[int, ...]
    """Rights that are denied unless a rule gives them: of files, of TCP ports, scopes; as many as the kernel knows."""
    rules: tuple[tuple[str, int], ...]
    """Path and the rights that are given beneath it."""


class Plan(Contract):
    """What `guard` does before it becomes the program."""

    argv: tuple[str, ...]
    """The program, by absolute path, and its arguments."""
    env: dict[str, str]
    """Its whole environment."""
    limits: dict[str, int]
    """Resource limits by the names of the module `resource`."""
    user: int | None = None
    """User and group id to become; null: stay."""
    drop_capabilities: bool = True
    """Whether to give up capabilities where the user stays."""
    landlock: Domain | None = None
    """Landlock domain; null: none."""
    filter: str | None = None
    """System-call filter in hex; null: none."""

    def command(self) -> tuple[str, ...]:
        """The command line of a guard that follows this plan."""
        return (*ISOLATED, "-c", _source(), self.model_dump_json())


@cache
def _source() -> str:
    return Path(__file__).with_name("guard.py").read_text()


def resource_limits(limits: Limits) -> dict[str, Any]:
    """Limits by the names of the module `resource`. Tasks are counted per user, so a backend limits them by itself."""
    return {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_CPU": limits.cpu_s,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
