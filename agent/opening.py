"""How commands open the workspace: what was mended on the way is said."""

import sys
from pathlib import Path

from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace, find_root, open_workspace


def opened(path: Path | None) -> Workspace:
    """The workspace, made where there is none; what was mended while opening it is said."""
    ws = open_workspace(path)
    for note in ws.notes:
        print(f"nightsmith: {note}", file=sys.stderr)
    return ws


def found(path: Path | None) -> Workspace | None:
    """The workspace where there is one: a command that only reads makes none."""
    return opened(path) if find_root(path).is_dir() else None


def existing(path: Path | None) -> Workspace:
    """The workspace. Raises NightsmithError where there is none."""
    ws = found(path)
    if ws is None:
        raise NightsmithError(
            f"There is no workspace at {find_root(path)}. Change into the folder that you began in, name another one "
            'with --workspace, or begin with `nightsmith run "GOAL"`.'
        )
    return ws
