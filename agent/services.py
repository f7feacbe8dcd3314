"""What the graph's nodes are given at run time: the workspace, the planner, the folder that goals speak of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nightsmith.agent.planner import Planner
from nightsmith.record.workspace import Workspace


@dataclass(frozen=True)
class Services:
    """Injected through LangGraph's runtime context; nothing in it is saved with the graph."""

    ws: Workspace
    """The workspace that the study lives in."""
    planner: Callable[[], Planner]
    """Makes the planner when a decision is due: a resumed study may need none."""
    cwd: Path
    """Folder that relative paths of the goal are taken from."""
