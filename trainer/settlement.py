"""How an attempt of a job ended, found from its files, and what follows from it in the record, once. Torch-free."""

from pathlib import Path

from nightsmith.record import budget, events, leases
from nightsmith.record.clock import utc_now
from nightsmith.record.errors import Damaged
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows, runfolder
from nightsmith.trainer.accounting import spent
from nightsmith.trainer.jobrows import JobRow
from nightsmith.trainer.launch.base import Gone
from nightsmith.trainer.launch.launchers import launcher_of
from nightsmith.trainer.spec import RunResult, RunStatus


def find_end(row: JobRow) -> RunResult | None:
    """How the newest attempt ended; None while it runs or comes up.

    The launcher is asked before the exit record is read: a process that is gone has written its record before.
    """
    folder = Path(row.launch.workdir)
    claim = runfolder.read_claim(folder, row.attempt)
    if claim is not None and claim.pid == 0:
        return _without_record(row, Gone(RunStatus.KILLED, "It was stopped before a process took it."))
    gone = gone_of(row, claim)
    if gone is None or (claim is None and not runfolder.claim(folder, runfolder.void(row.attempt))):
        return None
    try:
        ended = runfolder.read_end(folder, row.attempt)
    except Damaged as damage:
        return _result(row, RunStatus.FAILED, str(damage))
    return ended or _without_record(row, gone)


def gone_of(row: JobRow, claim: runfolder.Claim | None) -> Gone | None:
    """What the launcher of the newest attempt says of it: whether nobody runs it any more."""
    waited_s = (utc_now() - row.started_at).total_seconds()
    return launcher_of(row.launch).gone(row.launch, row.attempt, claim, waited_s)


def settle(ws: Workspace, row: JobRow, result: RunResult) -> None:
    """Record the end, charge what was spent, free the devices; all of it or nothing, and only once an attempt."""
    amount = spent(row)
    with ws.write() as db:
        if not jobrows.settle(db, row, result):
            return
        budget.reconcile(db, row.key, amount)
        leases.release(db, row.key)
        detail = {
            "status": result.status,
            "reason": result.reason,
            "attempt": row.attempt,
            "num_steps": result.num_steps,
            "wall_s": amount.wall_s,
            "metrics": {} if result.evaluation is None else result.evaluation.metrics,
        }
        events.insert(db, row.study, "job_finished", trial=row.trial, job=row.key, data=detail)


def _without_record(row: JobRow, gone: Gone) -> RunResult:
    """The result of an attempt that left none, written into its folder as that attempt's."""
    folder = Path(row.launch.workdir)
    goes_on = "; started again, it goes on" if gone.status == RunStatus.KILLED else ""
    result = _result(row, gone.status, f"{gone.why} Its output is in {folder / runfolder.LOG}{goes_on}.")
    runfolder.finish(folder, row.attempt, result)
    return result


def _result(row: JobRow, status: RunStatus, reason: str) -> RunResult:
    return RunResult(
        key=row.key,
        spec_digest=row.spec.digest(),
        status=status,
        reason=reason,
        wall_s=spent(row).wall_s,
        devices=row.launch.devices,
    )
