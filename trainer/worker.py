"""One start of a job: `python -m nightsmith.trainer.worker RUN_DIR --attempt N`.

Reads `spec.json` and `launch.json`, writes `events.jsonl`, checkpoints, `result.json` and, last, `exit.json`. It needs
nobody: it ends itself at its time limit, and goes on when the agent dies. Exit status: 0 finished, 1 ended otherwise,
75 this attempt is, or was, run by another process.
"""

import argparse
import errno
import importlib
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from pydantic import TypeAdapter

from nightsmith.record.errors import NightsmithError
from nightsmith.record.offline import OFFLINE
from nightsmith.trainer import ranks, runfolder
from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.journal import JOURNAL, Journal
from nightsmith.trainer.post_training import OWN_BACKENDS
from nightsmith.trainer.spec import LaunchSpec, PostTraining, RewardSpec, RunResult, RunSpec, RunStatus, TrainSpec

RUNNERS = {kind: f"nightsmith.trainer.{kind}" for kind in ("pretrain", "sft", "dpo", "reward", "grpo", "evaluate")}
"""Kind of job -> module with `run(attempt, spec)`; imported once the attempt is claimed, as torch takes seconds."""

EXTERNAL = "nightsmith.trainer.external_job"
"""Module of the jobs that an external trainer carries out, whatever their kind."""

TAKEN = 75
"""Exit status of a process that found its attempt taken (EX_TEMPFAIL)."""
LOCK_WAIT_S = 2.0
HEARTBEAT_EVERY_S = 2.0
HARD_AFTER_S = 10.0
"""Seconds after the time limit at which a job that has not ended in order is ended by its overseer thread."""
KILL_AFTER_S = 20.0
"""Seconds after the time limit at which the kernel ends it, whatever it is stuck in."""
BALLAST, BALLAST_BYTES = ".ballast", 65_536
DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DISK_FULL_PHRASES = (
    *(f"(os error {number})" for number in DISK_FULL_ERRORS), "pytorchstreamwriter failed writing", "unexpected pos",
)  # fmt: skip
"""What safetensors and `torch.save` say instead of raising OSError."""
MEMORY_PHRASES = ("out of memory", "can't allocate memory")


def main(argv: list[str] | None = None) -> int:
    """Run one attempt. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m nightsmith.trainer.worker", description="Run one attempt of a job."
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--attempt", type=int, default=1)
    args = parser.parse_args(argv)
    os.environ.update(OFFLINE)
    run_dir: Path = args.run_dir.resolve()
    claimed = runfolder.Claim(
        attempt=args.attempt,
        pid=os.getpid(),
        pid_start=runfolder.process_start(os.getpid()) or 0,
        host=socket.gethostname(),
    )
    if runfolder.take_lock(run_dir, LOCK_WAIT_S) is None or not runfolder.claim(run_dir, claimed):
        return TAKEN
    return Worker(run_dir, args.attempt).run()


class Worker:
    """The process that runs an attempt, from claim to exit record."""

    def __init__(self, run_dir: Path, number: int) -> None:
        """Read spec and launch, open the journal."""
        self._run_dir, self._number = run_dir, number
        self._spec: RunSpec = TypeAdapter[RunSpec](RunSpec).validate_json((run_dir / runfolder.SPEC).read_bytes())
        self._launch = LaunchSpec.model_validate_json((run_dir / runfolder.LAUNCH).read_bytes())
        self._deadline = time.monotonic() - runfolder.process_age_s() + self._launch.time_limit_s
        self._stopped = False
        self._finishing = threading.Lock()
        self._ballast = run_dir / BALLAST
        journal = Journal(run_dir / JOURNAL, number)
        self._attempt = Attempt(
            run_dir, self._launch.devices, journal, ending=self._ending, micro_batch_size=self._launch.micro_batch_size
        )

    def run(self) -> int:
        """Run to an exit record. Returns the process's exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # The default action of SIGALRM ends the process even where Python no longer runs.
        signal.setitimer(signal.ITIMER_REAL, max(0.0, self._deadline - time.monotonic()) + KILL_AFTER_S)
        threading.Thread(target=self._oversee, daemon=True).start()
        status, reason = outcome(self._run_spec, runfolder.LOG)
        with self._finishing:
            self._finish(status, reason)
        return 0 if status == RunStatus.FINISHED else 1

    def _run_spec(self) -> None:
        self._ballast.write_bytes(bytes(BALLAST_BYTES))
        self._attempt.phase("start")
        require_inputs(self._spec)
        if self._launch.processes > 1:
            ranks.run(self._attempt, self._launch, self._number)
        else:
            run_here(self._attempt, self._spec)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stopped = True

    def _ending(self) -> RunStatus | None:
        if self._stopped:
            return RunStatus.STOPPED
        return RunStatus.TIMED_OUT if time.monotonic() > self._deadline else None

    def _oversee(self) -> None:
        """Heartbeats; ends a job that does not end itself after its time limit."""
        while (left := self._deadline + HARD_AFTER_S - time.monotonic()) > 0:
            with suppress(OSError):
                self._attempt.journal.write("heartbeat", peak_memory_gib=peak_memory_gib())
            time.sleep(min(left, HEARTBEAT_EVERY_S))
        if self._finishing.acquire(blocking=False):
            self._finish(RunStatus.TIMED_OUT, f"Did not end within {HARD_AFTER_S:g} s after its time limit; cut off.")
            os._exit(1)

    def _finish(self, status: RunStatus, reason: str) -> None:
        """Write result and exit record. The ballast gives a full disk the room for them."""
        self._ballast.unlink(missing_ok=True)
        with suppress(OSError):
            self._attempt.journal.write("end", status=status, reason=reason)
        runfolder.finish(self._run_dir, self._number, self._result(status, reason))

    def _result(self, status: RunStatus, reason: str) -> RunResult:
        return make_result(self._attempt, self._spec, status, reason, devices=self._launch.devices)


def run_here(attempt: Attempt, spec: RunSpec) -> None:
    """Do what the spec says in this process. Raises Ended, and whatever went wrong."""
    importlib.import_module(runner_of(spec)).run(attempt, spec)


def outcome(run: Callable[[], None], log: str) -> tuple[RunStatus, str]:
    """How a run ended, and why. No failure of it leaves here as an exception; tracebacks go to `log`."""
    try:
        run()
    except Ended as ended:
        return ended.status, ended.reason
    except NightsmithError as error:
        return RunStatus.FAILED, str(error)
    except Exception as error:
        traceback.print_exc()
        return classify(error, log)
    return RunStatus.FINISHED, ""


def make_result(attempt: Attempt, spec: RunSpec, status: RunStatus, reason: str, devices: tuple[str, ...]) -> RunResult:
    """What is known at the end of this process."""
    facts = attempt.facts
    return RunResult(
        key=attempt.run_dir.name,
        spec_digest=spec.digest(),
        status=status,
        reason=reason,
        metrics=facts.metrics,
        checkpoint=None if facts.checkpoint is None else str(facts.checkpoint),
        checkpoint_digest=facts.checkpoint_digest,
        initial_digest=facts.initial_digest,
        evaluation=facts.evaluation,
        num_steps=facts.num_steps,
        num_tokens=facts.num_tokens,
        wall_s=runfolder.process_age_s(),
        train_s=facts.train_s,
        evaluate_s=facts.evaluate_s,
        peak_memory_gib=max(peak_memory_gib(), facts.peak_memory_gib),
        devices=devices,
    )


def runner_of(spec: RunSpec) -> str:
    """The module whose `run` carries a spec out."""
    is_external = isinstance(spec, PostTraining) and spec.backend not in OWN_BACKENDS
    return EXTERNAL if is_external else RUNNERS[spec.kind]


def require_inputs(spec: RunSpec) -> None:
    """Raise NightsmithError for an absent input now, and not after the seconds that importing torch takes."""
    if isinstance(spec, TrainSpec):
        inputs = [spec.data] + ([spec.dev_suite.data] if spec.dev_suite else [])
        inputs += [spec.model.path] if isinstance(spec, PostTraining) else []
        inputs += [spec.held_out] if isinstance(spec, RewardSpec) and spec.held_out else []
    else:
        inputs = [spec.checkpoint, spec.suite.data]
    absent = [path for path in inputs if not Path(path).exists()]
    if absent:
        raise NightsmithError(f"{', '.join(absent)} is absent. Restore it, or build or train it again.")


def classify(error: Exception, log: str = runfolder.LOG) -> tuple[RunStatus, str]:
    """Status and reason of a failure that nobody expected; its traceback is in `log`."""
    text = f"{type(error).__name__}: {error}"
    said = str(error).lower()
    is_known = isinstance(error, OSError) and error.errno in DISK_FULL_ERRORS
    if is_known or any(phrase in said for phrase in DISK_FULL_PHRASES):
        return RunStatus.DISK_FULL, f"{text}. Free space and start it again: it goes on from its last checkpoint."
    if isinstance(error, MemoryError) or any(phrase in said for phrase in MEMORY_PHRASES):
        told = "Where a batch can be halved it is started again so; else use a smaller seq_len or preset."
        return RunStatus.OUT_OF_MEMORY, f"{text}. {told}"
    return RunStatus.FAILED, f"{text}. The traceback is in {log}."


def peak_memory_gib() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())
