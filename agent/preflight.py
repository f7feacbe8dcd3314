"""Preflight: whether files, models and hardware exist for what the goal asks. Starts nothing."""

import datetime as dt
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from nightsmith.agent import literals
from nightsmith.agent.fitting import Blocked, Machine
from nightsmith.agent.goal import DataRole, GoalSpec, Intent
from nightsmith.agent.looking import Look, look
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.planning import check_supported, study_plan
from nightsmith.agent.settings import load_settings
from nightsmith.agent.sizing import check_sizes
from nightsmith.model.presets import PRESETS
from nightsmith.record import leases
from nightsmith.record.budget import Deadline
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolCall
from nightsmith.trainer import jobs
from nightsmith.trainer.sizing import memory_bytes
from nightsmith.trainer.spec import PretrainSpec, RunSpec, SftSpec

FREE_DISK_BYTES = 500 * 2**20
RECENT_RUNS = 8
_USED: Mapping[Intent, tuple[DataRole, ...]] = {
    "train": ("train", "preference"),
    "build_data": ("train", "preference", "prompts", "replay"),
}
"""Roles of which a goal needs data; others take any."""
MIN_DOCUMENTS, WANTED_ROWS = 200, 400
LEAST_CHUNK, LARGEST_CHUNK = 256, 2048


def preflight(spec: GoalSpec, ws: Workspace, cwd: Path) -> StudyPlan:
    """Check that the goal can be pursued here and plan it. Raises Blocked or ToolError with what would mend it."""
    if (used := _USED.get(spec.intent)) and not [d for d in spec.data if d.role in used]:
        raise Blocked(
            "The goal names no data to train on: a folder, a file, or a built-in source such as python-stdlib."
        )
    machine = survey(ws, spec.budget.deadline)
    check_supported(spec, machine)
    settings = load_settings(cwd)
    seen = look(spec, cwd, settings.model, settings.sft.asked)
    plan = enough_rows(study_plan(spec, machine, seen), seen)
    free = shutil.disk_usage(ws.root).free
    if free < FREE_DISK_BYTES:
        raise Blocked(
            f"Only {free / 2**20:.0f} MiB of disk are free at {ws.root}; a study needs {FREE_DISK_BYTES >> 20}."
        )
    check_sizes(plan, machine, seen, free)
    return plan.model_copy(update={"assumptions": (*plan.assumptions, *left_out(spec, cwd))})


def left_out(spec: GoalSpec, cwd: Path) -> list[str]:
    """Says of each file or folder here that the goal's text names and its reading does not use."""
    reading = spec.model_dump_json(exclude={"goal"})
    named = dict.fromkeys(found.value for found in literals.find(spec.goal) if isinstance(found.value, str))
    unused = [name for name in named if json.dumps(name, ensure_ascii=False) not in reading]
    return [f"The goal names {name}, which is here; it is not used." for name in unused if _is_here(cwd, name)]


def _is_here(cwd: Path, name: str) -> bool:
    try:
        return (cwd / Path(name).expanduser()).exists()
    except (OSError, ValueError, RuntimeError):  # a quoted text may be longer than any name, or hold anything
        return False


def enough_rows(plan: StudyPlan, seen: Look) -> StudyPlan:
    """Where documents are too few to hold any out, they are cut into rows; said as an assumption."""
    said: list[str] = []
    calls = tuple(_with_chunks(call, seen, said) for call in plan.calls)
    return plan.model_copy(update={"calls": calls, "assumptions": (*plan.assumptions, *said)})


def _with_chunks(call: ToolCall, seen: Look, said: list[str]) -> ToolCall:
    if call.tool != "build_dataset":
        return call
    refs = call.args.get("sources") or [*call.args.get("dev_sources", ()), *call.args.get("sealed_sources", ())]
    looks = [seen.of(ref) for ref in refs]
    num_rows = sum(each.num_rows for each in looks)
    if not looks or num_rows >= MIN_DOCUMENTS or not all(each.is_text for each in looks):
        return call
    chunk = max(LEAST_CHUNK, min(LARGEST_CHUNK, sum(each.num_bytes for each in looks) // WANTED_ROWS))
    why = "some can be held out" if call.args.get("sources") else "there are enough to measure on"
    said.append(f"The data are {num_rows} documents: cut into rows of {chunk} bytes, so that {why}.")
    return call.model_copy(update={"args": call.args | {"chunk_bytes": chunk}})


def survey(ws: Workspace, deadline: Deadline | None, now: dt.datetime | None = None) -> Machine:
    """What this machine offers: devices, memory, measured speeds, time to the deadline."""
    found = leases.devices()
    gpus = sum(device.startswith("cuda") for device in found)
    speeds = measured_speeds(ws)
    return Machine(
        devices=gpus or len(found),
        gpus=gpus,
        memory_bytes=memory_bytes(),
        tokens_per_s={name: median(values) for name, values in speeds.items()},
        num_measured={name: len(values) for name, values in speeds.items()},
        seconds_to_deadline=seconds_to(deadline, now or dt.datetime.now()) if deadline else None,
    )


def measured_speeds(ws: Workspace) -> dict[str, list[float]]:
    """Tokens per second and device of the newest finished training runs in this workspace.

    By preset; of fine-tunings by the digest of the model that they started from.
    """
    speeds: dict[str, list[float]] = {}
    for row in reversed(jobs.rows(ws)):
        if row.result is None or row.role == "manual":
            continue
        name, speed = _name_of(row.spec), row.result.metrics.get("time/tokens_per_s")
        if name and speed and len(found := speeds.setdefault(name, [])) < RECENT_RUNS:
            found.append(speed)
    return speeds


def _name_of(spec: RunSpec) -> str | None:
    if isinstance(spec, SftSpec):
        return spec.model.weights_digest
    return preset_of(spec) if isinstance(spec, PretrainSpec) else None


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
