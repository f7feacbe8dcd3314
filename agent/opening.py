"""How commands open the workspace: what was mended on the way is said."""

import sys
from pathlib import Path

from nightsmith.record.workspace import Workspace, open_workspace


def opened(path: Path | None) -> Workspace:
    """The workspace; what was mended while opening it is said."""
    ws = open_workspace(path)
    for note in ws.notes:
        print(f"nightsmith: {note}", file=sys.stderr)
    return ws
