"""What the reading commands do: `studies`, `show`, `report`. Apart from `session`, whose graph takes long to load."""

import gc
import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from nightsmith.agent import history, render
from nightsmith.agent import report as reporting
from nightsmith.agent.opening import existing, found
from nightsmith.agent.side_by_side import with_sides
from nightsmith.record import studies


def show(study: str, path: Path | None, *, as_json: bool, every: bool = False) -> int:
    """One study, readable at 80 columns or as JSON. JSON has every trial, text only those that matter most."""
    ws = existing(path)
    view = with_sides(ws, history.load(ws, study))
    print(view.model_dump_json(indent=1) if as_json else render.show(view, every=every))
    return 0


def studies_table(path: Path | None, *, as_json: bool) -> int:
    """All studies, one line each."""
    ws = found(path)
    rows = history.summaries(ws) if ws else []
    print(json.dumps([row.model_dump(mode="json") for row in rows]) if as_json else render.study_table(rows))
    return 0


def report(study: str, path: Path | None) -> int:
    """Write the report again from the truth."""
    ws = existing(path)
    studies.get(ws, study)
    with _uncollected():
        print(reporting.write(ws, study))
    return 0


@contextmanager
def _uncollected() -> Generator[None]:
    """One large model is made and nothing of it becomes garbage: the collector would only walk it again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
