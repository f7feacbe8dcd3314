"""What the commands tell of schedules and nights, and `night remove`. Loads no graph."""

import json
from pathlib import Path
from typing import Any

from nightsmith.agent import night_install, night_view
from nightsmith.agent.opening import existing, found
from nightsmith.agent.standing import is_driven
from nightsmith.record import approvals, schedules
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.schedules import ScheduleRow
from nightsmith.record.workspace import Workspace


def listing(path: Path | None, *, as_json: bool) -> int:
    """All schedules."""
    ws = found(path)
    rows = [(ws, row) for row in schedules.all(ws)] if ws else []
    if as_json:
        print(json.dumps([_as_data(ws, row) for ws, row in rows]))
        return 0
    told = [night_view.schedule_lines(ws, row, schedules.valid_approval(ws, row)) for ws, row in rows]
    print("\n\n".join(told) or 'No schedules yet. Add one: nightsmith night add "GOAL" --at 22:00 --until 07:00')
    return 0


def show(name: str, path: Path | None, *, as_json: bool) -> int:
    """One schedule, what was approved for it, and its last nights."""
    ws = existing(path)
    row = schedules.get(ws, name)
    nights = [night_view.night(ws, row, one) for one in schedules.occurrences(ws, row.id)[-5:]]
    if as_json:
        print(json.dumps(_as_data(ws, row) | {"nights": [one.model_dump(mode="json") for one in nights]}, indent=1))
        return 0
    told = [night_view.schedule_lines(ws, row, schedules.valid_approval(ws, row)), *map(night_view.night_lines, nights)]
    print("\n\n".join([*told[:1], f"In: {row.folder}", *told[1:]]))
    return 0


def history(name: str | None, path: Path | None, *, last: int, as_json: bool) -> int:
    """What became of each night, oldest first; of removed schedules too."""
    ws = existing(path)
    known = {row.id: row for row in schedules.all(ws, removed=True) if name in (None, row.name)}
    if name and not known:
        schedules.get(ws, name)  # says which there are
    rows = [row for row in schedules.occurrences(ws) if row.schedule in known][-last:]
    nights = [night_view.night(ws, known[row.schedule], row) for row in rows]
    if as_json:
        print(json.dumps([one.model_dump(mode="json") for one in nights], indent=1))
    else:
        print("\n\n".join(map(night_view.night_lines, nights)) or "No night was due yet.")
    return 0


def remove(name: str, path: Path | None, *, now: Clock = utc_now) -> int:
    """Take a schedule out, withdraw its approval and stop its timer; its history stays."""
    ws = existing(path)
    row = schedules.remove(ws, name, now=now)
    approvals.revoke(ws, row.account, now=now)
    night_install.follow(ws, now)
    print(f"Removed {name}. What it ran stays in `nightsmith night history`.")
    for study in (night.study for night in schedules.unfinished(ws, row.id) if night.study):
        if is_driven(ws, study):
            print(f"Its night is still running and goes on to its end; to end it now: nightsmith stop {study}")
        else:
            print(f"Its last night was cut off and is not taken up again: nightsmith resume {study}, or stop {study}")
    return 0


def _as_data(ws: Workspace, row: ScheduleRow) -> dict[str, Any]:
    approval = schedules.valid_approval(ws, row)
    return row.model_dump(mode="json") | {"approval": approval.model_dump(mode="json") if approval else None}
