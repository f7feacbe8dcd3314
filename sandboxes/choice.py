"""Which backend is used here: bubblewrap, else the Landlock jail, else the plain process where a person allows it."""

import logging
import os
from functools import cache

from nightsmith.record.errors import Refused
from nightsmith.sandboxes.base import Sandbox
from nightsmith.sandboxes.bubblewrap import INSTALL, Bubblewrap
from nightsmith.sandboxes.canary import probe
from nightsmith.sandboxes.landlock import Landlock
from nightsmith.sandboxes.process import PlainProcess

_LOG = logging.getLogger(__name__)
SANDBOXES: dict[str, Sandbox] = {sandbox.name: sandbox for sandbox in (Bubblewrap(), Landlock(), PlainProcess())}
"""Backends by name, the strongest first."""
SETTING = '"allow_plain_process": true in the spec of the run'


def choose(allow_process: bool = False) -> Sandbox:
    """The strongest backend that holds here; each is tested once in a process.

    Args:
        allow_process: whether a person allowed code to run without a sandbox.

    Raises:
        Refused: no backend isolates here, and the plain process is not allowed.
    """
    for sandbox in SANDBOXES.values():
        if sandbox.isolates and unusable(sandbox.name) is None:
            return sandbox
    if allow_process:
        _LOG.warning("No sandbox works here and the plain process is allowed: the code can do all that its user can.")
        return SANDBOXES["process"]
    reasons = "; ".join(f"{s.name}: {unusable(s.name)}" for s in SANDBOXES.values() if s.isolates)
    raise Refused(
        f"Code that an agent or a user wrote runs only in a sandbox, and none works here ({reasons}). "
        f"Best: {INSTALL}. To run it without any protection: {SETTING}."
    )


def unusable(name: str) -> str | None:
    """Why a backend cannot be used here; null: it was tested and holds. The plain process is never tested."""
    return _verdict(name, os.getpid())


@cache
def _verdict(name: str, process_id: int) -> str | None:  # noqa: ARG001  (tested in each process anew)
    sandbox = SANDBOXES[name]
    lacking = sandbox.lacking()
    if lacking is not None or not sandbox.isolates:
        return lacking
    result = probe(sandbox)
    return None if result.holds else result.told()
