"""`night run` for real: the studies of due schedules, driven with the planner that their folders' settings name."""

import asyncio
import json
from pathlib import Path

from nightsmith.agent import night_view
from nightsmith.agent.night_run import Drive, NightRun
from nightsmith.agent.opening import existing
from nightsmith.agent.planner import Planner
from nightsmith.agent.remote import say_remote
from nightsmith.agent.services import Services
from nightsmith.agent.settings import load_settings
from nightsmith.agent.study import Desk, Driver, Ending
from nightsmith.record import events, schedules
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.workspace import Workspace


def run(name: str | None, path: Path | None, *, forced: bool, as_json: bool, now: Clock = utc_now) -> int:
    """Run what is due (`forced`: due or not)."""
    ws = existing(path)
    chosen = [schedules.get(ws, name)] if name else schedules.all(ws)
    before = {row.id for row in schedules.occurrences(ws) if row.ended_at is not None}
    code = NightRun(ws, driver(ws), now=now, as_json=as_json).run(chosen, forced=forced)
    rows = [row for row in schedules.occurrences(ws) if row.ended_at is not None and row.id not in before]
    by_id = {row.id: row for row in chosen}
    nights = [night_view.night(ws, by_id[row.schedule], row) for row in rows if row.schedule in by_id]
    if as_json:
        told = [one.model_dump(mode="json") for one in nights]
        print(json.dumps({"kind": "nights", "nights": told, "exit_status": code}), flush=True)
    else:
        print("\n\n".join(map(night_view.night_lines, nights)) or "Nothing was due.")
    return code


def driver(ws: Workspace) -> Drive:
    """Drives studies for real: with the planner that the settings of the goal's folder name."""

    def drive(study: str, front: Desk, folder: Path) -> Ending:
        say_remote(load_settings(folder))
        services = Services(ws=ws, planner=lambda: Planner(load_settings(folder).backend()), cwd=folder)
        last = events.read(ws, study=study)
        seen = last[-1].seq if len(last) > 1 else 0
        return asyncio.run(Driver(services, study, front, seen=seen).drive())

    return drive
