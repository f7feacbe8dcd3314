"""Jobs: started exactly once, under approval, budget and lease; watched through their files; settled exactly once.

A start is an intent in the record (one transaction with approval, reservation and lease), then a process. Whoever dies
in between, `start` may be called again: the process that links `claim-N.json` first runs attempt N, every other one
leaves. Torch-free.
"""

import signal
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nightsmith.record import approvals, audit, budget, events, leases
from nightsmith.record.clock import utc_now
from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError, NotApproved, Refused
from nightsmith.record.leases import DeviceKind
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows, micro_batches, runfolder, settlement
from nightsmith.trainer.accounting import reservation
from nightsmith.trainer.jobrows import STARTED, JobRow, Role, rows
from nightsmith.trainer.journal import JOURNAL, read_tail
from nightsmith.trainer.launch import local, site
from nightsmith.trainer.launch.launchers import launcher_of
from nightsmith.trainer.sizing import TooLarge, plan_of, require_room
from nightsmith.trainer.spec import RunResult, RunSpec, RunStatus

__all__ = ["JobRow", "Progress", "Role", "may_go_on", "num_starts", "poll", "progress", "rows", "start", "stop"]

CONTINUED = frozenset({RunStatus.KILLED, RunStatus.HUNG, RunStatus.STOPPED, RunStatus.DISK_FULL})
"""Ends after which the same job may be started again and goes on from its last checkpoint."""
KILL_WAIT_S = 60.0
"""Seconds that a job may take to be gone once it is ended; a cluster's nodes are asked, and clean up."""
POLL_S = 0.05


class Progress(Contract):
    """How a job stands, from its journal. Null: not known yet."""

    phase: str | None = None
    """start, data, build, train or evaluate."""
    step: int | None = None
    """Optimizer steps done."""
    num_steps: int | None = None
    """Optimizer steps in all."""
    loss: float | None = None
    """Training loss of the newest step, nats per token."""
    tokens_per_s: float | None = None
    """Mean training speed."""
    eta_s: float | None = None
    """Seconds until training ends."""
    evaluated: float | None = None
    """Share of the evaluation that is done."""
    at: datetime | None = None
    """Last sign of life."""


@dataclass(frozen=True)
class _Request:
    """What a caller asks to start."""

    key: str
    study: str
    step: str
    trial: int | None
    role: Role
    spec: RunSpec
    time_limit_s: float
    num_devices: int
    device_kind: DeviceKind
    site: site.LocalSite | site.SlurmSite


def start(
    ws: Workspace,
    spec: RunSpec,
    *,
    study: str,
    step: str,
    trial: int | None = None,
    role: Role,
    time_limit_s: float,
    num_devices: int | None = None,
    device_kind: DeviceKind = "cpu",
) -> str:
    """Start a job and return its key. Called again with the same study, step and spec it starts nothing new.

    A job that was killed, hung, was stopped or met a full disk is started again, under this call's limits, and goes on
    from its last checkpoint; so does one that ran out of memory, with micro-batches of half the size and the same
    batches. One that ended otherwise stays as it is. `num_devices` is a multiple of the processes that train; null: one
    for each.

    Raises:
        NightsmithError: the devices cannot be shared out evenly, or the settings name no launcher that takes the job.
        TooLarge, NotApproved, BudgetSpent, NoDevice: refused; the audit and the study's events say so.
    """
    key = jobrows.key_of(study, step, spec)
    number, where = _num_devices(spec, num_devices), site.chosen(time_limit_s)
    request = _Request(key, study, step, trial, role, spec, time_limit_s, number, device_kind, where)
    known = _settled(ws, key)
    leases.devices()  # asks nvidia-smi once a process: not inside the transaction
    try:
        if where.kind == "local" and (known is None or known.state in CONTINUED):
            require_room(spec, ws.root, device_kind)
        with ws.write() as db:
            row = _intend(db, request, ws.run_dir(key))
    except Refused as refusal:
        _record_refusal(ws, request, refusal)
        raise
    if row.state == STARTED:
        _spawn(row)
    return key


def poll(ws: Workspace, key: str) -> RunResult | None:
    """The result of a job that has ended; None while it runs. Settles budget and lease, once, at the first sight of it.

    Raises NightsmithError where there is no such job.
    """
    row = jobrows.get(ws, key)
    if row.state == STARTED and (result := settlement.find_end(row)) is not None:
        settlement.settle(ws, row, result)
        row = jobrows.get(ws, key)
    return row.result


def stop(ws: Workspace, key: str, *, grace_s: float = 30.0) -> RunResult | None:
    """End a job: asked to checkpoint and leave, and killed after `grace_s` seconds. Returns its result.

    Raises NightsmithError where there is no such job.
    """
    row = jobrows.get(ws, key)
    folder, cancel = Path(row.launch.workdir), launcher_of(row.launch).cancel
    if row.state != STARTED:
        return row.result
    if runfolder.claim(folder, runfolder.void(row.attempt)):
        cancel(row.launch, row.attempt, None, signal.SIGKILL)
    elif (claim := runfolder.read_claim(folder, row.attempt)) is not None:
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
            cancel(row.launch, row.attempt, claim, number)
            if _wait_gone(row, claim, wait_s):
                break
    return poll(ws, key)


def progress(ws: Workspace, key: str) -> Progress:
    """How a job stands. Everything is null before its process has written anything."""
    row = jobrows.get(ws, key)
    lines = [line for line in read_tail(Path(row.launch.workdir) / JOURNAL) if line.get("attempt") == row.attempt]
    newest: dict[str, dict[str, Any]] = {line["kind"]: line for line in lines}
    training, evaluation = newest.get("step", {}), newest.get("evaluate")
    return Progress(
        phase=newest.get("phase", {}).get("phase"),
        **{name: training.get(name) for name in ("step", "num_steps", "loss", "tokens_per_s", "eta_s")},
        evaluated=evaluation["done"] / evaluation["total"] if evaluation else None,
        at=lines[-1]["at"] if lines else None,
    )


def may_go_on(ws: Workspace, key: str) -> bool:
    """Whether `start` would start the job again. Raises NightsmithError where there is no such job."""
    return _continues(jobrows.get(ws, key))


def num_starts(ws: Workspace, key: str) -> int:
    """How often a job was started. Raises NightsmithError where there is no such job."""
    return jobrows.get(ws, key).attempt


def _intend(db: sqlite3.Connection, request: _Request, folder: Path) -> JobRow:
    """The job's row, with a new attempt intended where the job is new or may go on. Raises Refused."""
    row = jobrows.find(db, request.key)
    if row is not None and not _continues(row):
        return row
    approval = approvals.require(db, request.study, kind=request.spec.kind, time_limit_s=request.time_limit_s)
    if request.role == "manual":
        _require_named(db, approval, request)
    amount = reservation(
        request.spec, request.role, time_limit_s=request.time_limit_s,
        num_devices=request.num_devices, device_kind=request.device_kind,
    )  # fmt: skip
    budget.reserve(db, request.study, request.key, amount)
    devices = leases.acquire(db, request.key, request.num_devices, request.device_kind)
    attempt, now = (row.attempt + 1 if row else 1), utc_now()
    launch = local.worker(folder, attempt, devices, request.time_limit_s, plan_of(request.spec).world)
    launch = launch.model_copy(update={"micro_batch_size": micro_batches.for_next_start(row)})
    intended = JobRow(
        key=request.key, study=request.study, step=request.step, trial=request.trial, role=request.role,
        spec=request.spec, launch=launch.model_copy(update={"site": request.site}), attempt=attempt,
        created_at=row.created_at if row else now, started_at=now,
    )  # fmt: skip
    jobrows.put(db, intended)
    _record_start(db, intended)
    return intended


def _num_devices(spec: RunSpec, asked: int | None) -> int:
    processes = plan_of(spec).world
    if asked is None:
        return processes
    if asked % processes:
        raise NightsmithError(
            f"{asked} device(s) cannot be shared out evenly among the {processes} processes that the spec's `parallel` "
            f"asks for. Ask for a multiple of {processes}."
        )
    return asked


def _continues(row: JobRow) -> bool:
    if row.state == RunStatus.OUT_OF_MEMORY:
        return micro_batches.halved(row) is not None
    return row.state in CONTINUED


def _require_named(db: sqlite3.Connection, approval: approvals.Approval, request: _Request) -> None:
    """A job started by hand is the one that was approved, or repeats one of the study's own."""
    digest = request.spec.digest()
    own = db.execute("SELECT spec FROM jobs WHERE study = ?", (request.study,)).fetchall()
    if approval.envelope.spec_digest != digest and request.spec.model_dump_json() not in {row["spec"] for row in own}:
        raise NotApproved(
            f"The approval of {request.study!r} is for other specs than this one ({digest[:12]}). Approve this one: "
            "--yes on the command line, without --study."
        )


def _spawn(row: JobRow) -> None:
    """Bring up a process for the attempt unless one has claimed it: `base.Launcher.launch` may be called again."""
    folder = Path(row.launch.workdir)
    if runfolder.read_claim(folder, row.attempt) is not None:
        return
    runfolder.prepare(folder, row.spec, row.launch, row.attempt)
    handle = launcher_of(row.launch).launch(row.launch, row.attempt)
    runfolder.write_atomic(folder / f"launched-{row.attempt}.json", handle.model_dump_json())


def _settled(ws: Workspace, key: str) -> JobRow | None:
    """The job, if there is one; an end that nobody has polled for is taken note of, so that it can be started again."""
    with ws.read() as db:
        if jobrows.find(db, key) is None:
            return None
    poll(ws, key)
    return jobrows.get(ws, key)


def _record_start(db: sqlite3.Connection, row: JobRow) -> None:
    detail = {
        "kind": row.spec.kind,
        "step": row.step,
        "role": row.role,
        "attempt": row.attempt,
        "devices": list(row.launch.devices),
        "launcher": row.launch.site.kind,
        "time_limit_s": row.launch.time_limit_s,
    }
    if row.launch.micro_batch_size is not None:
        detail["micro_batch_size"] = row.launch.micro_batch_size
    events.insert(db, row.study, "job_started", trial=row.trial, job=row.key, data=detail)
    audit.append(db, "job.started", {"job": row.key, "study": row.study, "spec": row.spec.digest(), **detail})


def _record_refusal(ws: Workspace, request: _Request, refusal: Refused) -> None:
    detail: dict[str, Any] = {
        "kind": request.spec.kind, "step": request.step, "role": request.role, "reason": str(refusal),
    }  # fmt: skip
    if isinstance(refusal, TooLarge):
        detail["refusals"] = [each.model_dump(mode="json", exclude_none=True) for each in refusal.refusals]
    with ws.write() as db:
        events.insert(db, request.study, "refused", trial=request.trial, job=request.key, data=detail)
        audit.append(db, "job.refused", {"job": request.key, "study": request.study, **detail})


def _wait_gone(row: JobRow, claim: runfolder.Claim, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while settlement.gone_of(row, claim) is None:
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S)
    return True
