"""Device leases: a device is held by one job at a time.

Leases are of this workspace; two workspaces on one machine do not see each other's: give each its share by
`$NIGHTSMITH_DEVICES`.
"""

import functools
import math
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.errors import NightsmithError, NoDevice
from nightsmith.record.settings_file import setting
from nightsmith.record.workspace import Workspace

DeviceKind = Literal["cpu", "cuda"]


def devices() -> tuple[str, ...]:
    """Devices that jobs may be given: those of this machine but the reserved ones.

    Raises NightsmithError where every one is reserved.
    """
    kept = reserved()
    available = tuple(device for device in _present() if device not in kept)
    if not available:
        raise NightsmithError(
            f"reserved_devices keeps every device from jobs ({', '.join(kept)}). Leave one out of it, in "
            "nightsmith.toml or $NIGHTSMITH_RESERVED_DEVICES."
        )
    return available


def reserved() -> tuple[str, ...]:
    """Devices that no job is given: `reserved_devices` in nightsmith.toml, or `$NIGHTSMITH_RESERVED_DEVICES`."""
    named = setting("reserved_devices") or ()
    return _parse(named.split(",") if isinstance(named, str) else named, "reserved_devices")


def _present() -> tuple[str, ...]:
    """Devices of this machine: `cpu:i`, one a usable core, and `cuda:i`, numbered as nvidia-smi does.

    `$NIGHTSMITH_DEVICES`, e.g. `cpu:0,cpu:1,cuda:0`, replaces what is found; `$CUDA_VISIBLE_DEVICES` narrows it.
    """
    if named := os.environ.get("NIGHTSMITH_DEVICES"):
        return _parse(named.split(","), "$NIGHTSMITH_DEVICES")
    cores = tuple(f"cpu:{index}" for index in range(_num_cores(Path("/sys/fs/cgroup/cpu.max"))))
    return cores + tuple(f"cuda:{index}" for index in visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")))


def acquire(
    db: sqlite3.Connection, key: str, num: int, kind: DeviceKind = "cpu", *, now: Clock = utc_now
) -> tuple[str, ...]:
    """Lease `num` devices to the job `key`, inside the caller's transaction. Asked again, a key gets the same ones.

    Raises:
        NoDevice: fewer are free, or the key holds another number already.
    """
    if num < 1:
        raise ValueError(f"A lease is of at least one device, not {num}.")
    held = _held(db, key, kind)
    if len(held) == num:
        return held
    available = _free(db, kind)
    if held or len(available) < num:
        raise NoDevice(_shortage(key, num, kind, held, available))
    rows = [(device, key, now().isoformat()) for device in available[:num]]
    db.executemany("INSERT INTO leases (device, key, at) VALUES (?, ?, ?)", rows)
    return available[:num]


def release(db: sqlite3.Connection, key: str) -> None:
    """Give back every device of a job; a key that holds none changes nothing."""
    db.execute("DELETE FROM leases WHERE key = ?", (key,))


def free(ws: Workspace, kind: DeviceKind = "cpu") -> tuple[str, ...]:
    """Devices of a kind that nobody holds."""
    with ws.read() as db:
        return _free(db, kind)


def _free(db: sqlite3.Connection, kind: DeviceKind) -> tuple[str, ...]:
    taken = {str(row["device"]) for row in db.execute("SELECT device FROM leases")}
    return tuple(device for device in devices() if device.startswith(f"{kind}:") and device not in taken)


def _held(db: sqlite3.Connection, key: str, kind: DeviceKind) -> tuple[str, ...]:
    rows = db.execute("SELECT device FROM leases WHERE key = ? AND device LIKE ? ORDER BY rowid", (key, f"{kind}:%"))
    return tuple(str(row["device"]) for row in rows)


def _shortage(key: str, num: int, kind: DeviceKind, held: tuple[str, ...], available: tuple[str, ...]) -> str:
    if held:
        return f"Job {key} asks for {num} {kind} device(s) but holds {', '.join(held)}. Release these first."
    total = sum(device.startswith(f"{kind}:") for device in devices())
    if num > total:
        kept = f" ({', '.join(reserved())} reserved)" if reserved() else ""
        return f"Job {key} asks for {num} {kind} device(s); jobs may have {total}{kept}. Ask for at most {total}."
    return (
        f"Job {key} asks for {num} {kind} device(s); {len(available)} of {total} are free. "
        "Wait for a running job to end, or stop one."
    )


def _parse(named: Sequence[str], where: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(str(name).strip() for name in named))
    wrong = [name for name in names if not re.fullmatch(r"(cpu|cuda):\d+", name)]
    if wrong:
        raise NightsmithError(
            f"{where} has {', '.join(map(repr, wrong))}. Allowed are cpu:<number> and cuda:<number>, "
            'e.g. cpu:0,cuda:0 in a variable, ["cpu:0", "cuda:0"] in nightsmith.toml.'
        )
    return names


def _num_cores(cpu_max: Path) -> int:
    """Cores that this process may use: its affinity, and its container's quota (cgroup v2 `cpu.max`: quota, period)."""
    cores = len(os.sched_getaffinity(0))
    if not cpu_max.exists():
        return cores
    quota, period = cpu_max.read_text().split()
    return cores if quota == "max" else max(1, min(cores, math.floor(int(quota) / int(period))))


@functools.cache
def _gpus() -> tuple[tuple[str, str], ...]:
    """(index, UUID) of each GPU that nvidia-smi lists; none where the tool is absent or finds no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    argv = [tool, "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        listing = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ()
    fields = [[field.strip() for field in line.split(",")] for line in listing.splitlines() if line.strip()]
    return tuple((index, uuid) for index, uuid in fields)


def visible(gpus: tuple[tuple[str, str], ...], allowed: str | None) -> tuple[str, ...]:
    """Indices of those (index, UUID) that `$CUDA_VISIBLE_DEVICES` allows; null: all."""
    if allowed is None:
        return tuple(index for index, _ in gpus)
    names = {name.strip() for name in allowed.split(",")}
    return tuple(index for index, uuid in gpus if index in names or uuid in names)
