"""Preflight: whether files, models and hardware exist for what the goal asks. Starts nothing."""

import datetime as dt
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.planning import Blocked, Machine, study_plan
from nightsmith.model.presets import PRESETS
from nightsmith.record import leases
from nightsmith.record.budget import Deadline
from nightsmith.record.workspace import Workspace
from nightsmith.tools.data.inspect import Inspection, inspect_data
from nightsmith.tools.data.resolve import resolve
from nightsmith.trainer import jobs
from nightsmith.trainer.spec import PretrainSpec

FREE_DISK_BYTES = 500 * 2**20
RECENT_RUNS = 8
MIN_DOCUMENTS, WANTED_ROWS = 200, 400
LEAST_CHUNK, LARGEST_CHUNK = 256, 2048


def preflight(spec: GoalSpec, ws: Workspace, cwd: Path) -> StudyPlan:
    """Check that the goal can be pursued here and plan it. Raises Blocked or ToolError with what would mend it."""
    if not [d for d in spec.data if d.role == "train"]:
        raise Blocked(
            "The goal names no data to train on: a folder, a file, or a built-in source such as python-stdlib."
        )
    plan = study_plan(spec, survey(ws, spec.budget.deadline))
    looks = [inspect_data(resolve(data.ref, cwd=cwd)) for data in spec.data if data.role == "train"]
    plan = enough_rows(plan, looks)
    free = shutil.disk_usage(ws.root).free
    if free < FREE_DISK_BYTES:
        raise Blocked(
            f"Only {free / 2**20:.0f} MiB of disk are free at {ws.root}; a study needs {FREE_DISK_BYTES >> 20}."
        )
    return plan


def enough_rows(plan: StudyPlan, looks: Sequence[Inspection]) -> StudyPlan:
    """Where documents are too few to hold any out, they are cut into rows; said as an assumption."""
    num_rows = sum(look.num_rows for look in looks)
    if num_rows >= MIN_DOCUMENTS or any(look.kind != "text" for look in looks):
        return plan
    chunk = max(LEAST_CHUNK, min(LARGEST_CHUNK, sum(look.num_bytes for look in looks) // WANTED_ROWS))
    cut = {"chunk_bytes": chunk}
    calls = tuple(
        call.model_copy(update={"args": call.args | (cut if call.tool == "build_dataset" else {})})
        for call in plan.calls
    )
    said = f"The data are {num_rows} documents: cut into rows of {chunk} bytes, so that some can be held out."
    return plan.model_copy(update={"calls": calls, "assumptions": (*plan.assumptions, said)})


def survey(ws: Workspace, deadline: Deadline | None, now: dt.datetime | None = None) -> Machine:
    """What this machine offers: devices, memory, measured speeds, time to the deadline."""
    found = leases.devices()
    gpus = sum(device.startswith("cuda") for device in found)
    speeds = measured_speeds(ws)
    return Machine(
        devices=gpus or len(found),
        gpus=gpus,
        memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        tokens_per_s={preset: median(values) for preset, values in speeds.items()},
        num_measured=sum(map(len, speeds.values())),
        seconds_to_deadline=seconds_to(deadline, now or dt.datetime.now()) if deadline else None,
    )


def measured_speeds(ws: Workspace) -> dict[str, list[float]]:
    """Tokens per second and device of the newest finished training runs in this workspace, by preset."""
    speeds: dict[str, list[float]] = {}
    for row in reversed(jobs.rows(ws)):
        if not isinstance(row.spec, PretrainSpec) or row.result is None or row.role == "manual":
            continue
        preset, speed = preset_of(row.spec), row.result.metrics.get("time/tokens_per_s")
        if preset and speed and len(found := speeds.setdefault(preset, [])) < RECENT_RUNS:
            found.append(speed)
    return speeds


def preset_of(spec: PretrainSpec) -> str | None:
    """Name of the preset that a spec's architecture is, if it is one."""
    return next((name for name, shape in PRESETS.items() if shape == spec.architecture), None)


def seconds_to(deadline: Deadline, now: dt.datetime) -> float:
    """Seconds from `now` (local time) to the deadline: its date, or the next time the clock shows it."""
    hour, minute = map(int, deadline.time.split(":"))
    if deadline.date:
        due = dt.datetime.combine(dt.date.fromisoformat(deadline.date), dt.time(hour, minute))
        if due <= now:
            raise Blocked(f"The deadline {deadline.date} {deadline.time} has passed (it is {now:%Y-%m-%d %H:%M}).")
        return (due - now).total_seconds()
    due = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((due if due > now else due + dt.timedelta(days=1)) - now).total_seconds()
