"""Seconds from a tool call to the job's first optimizer step: forked by the preloaded process, and started cold.

    python -m benchmarks warm_start [--starts 9] [--preset nano] [--source python-stdlib]

The clock starts before the call's arguments are checked and stops at the time that the journal gives for the first
step: approval, reservation, lease, process, data, model and step are inside. Warm and cold starts alternate; each is a
job of its own, of one thread, with another seed. Files and the kernel's caches are warm in both.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from nightsmith.record import approvals, budget
from nightsmith.record.approvals import Envelope
from nightsmith.record.budget import Budget
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools import registry
from nightsmith.tools.base import ToolCall
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.training import Pretrain, pretrain_spec
from nightsmith.trainer import jobs
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.launch import warm

STUDY = "bench"
STEPS = 100_000
WAIT_S = 60.0


def prepared(folder: Path, source: str) -> tuple[Workspace, Manifest]:
    """A workspace with an approved account and a dataset."""
    ws = open_workspace(folder / ".nightsmith")
    manifest = build_dataset(BuildDataset(sources=(source,)), ws)
    budget.open_account(ws, STUDY, Budget())
    envelope = Envelope(study=STUDY, spec_digest="-", plan_digest="-", kinds=("pretrain",), time_limit_s=600)
    approvals.approve(ws, envelope, how="flag")
    return ws, manifest


def first_step_s(ws: Workspace, manifest: Manifest, preset: str, seed: int) -> float:
    """Seconds from the call to the first step of a new job, which is ended then."""
    called_at = time.time()
    settings = {"dataset": manifest.dataset, "preset": preset, "num_steps": STEPS, "seed": seed}
    args = registry.validate(ToolCall(tool="pretrain", args=settings))
    assert isinstance(args, Pretrain)
    spec = pretrain_spec(args, manifest, ws)
    key = jobs.start(ws, spec, study=STUDY, step=f"seed-{seed}", role="trial", time_limit_s=600)
    steps = waited(lambda: [line for line in read_journal(ws.run_dir(key) / JOURNAL) if line.get("step")])
    jobs.stop(ws, key, grace_s=0)
    return datetime.fromisoformat(steps[0]["at"]).timestamp() - called_at


def waited(look: Callable[[], list[Any]]) -> list[Any]:
    """What `look` finds, as soon as it finds something."""
    until = time.monotonic() + WAIT_S
    while not (found := look()):
        if time.monotonic() > until:
            raise TimeoutError(f"nothing within {WAIT_S:g} s")
        time.sleep(0.01)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--source", default="python-stdlib")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {"NIGHTSMITH_CACHE": temporary, "NIGHTSMITH_DEVICES": "cpu:0"}
        ws, manifest = prepared(Path(temporary), args.source)
        began = time.monotonic()
        warm.bring_up()
        sockets = waited(lambda: list(Path(temporary).glob("servers/*.sock")))
        print(f"the preloaded process was ready after {time.monotonic() - began:.1f} s")
        seconds: dict[str, list[float]] = {"warm": [], "cold": []}
        for seed in range(2 * args.starts):
            kind = ("warm", "cold")[seed % 2]
            os.environ["NIGHTSMITH_WARM_IDLE_S"] = "60" if kind == "warm" else "0"
            seconds[kind].append(first_step_s(ws, manifest, args.preset, seed))
        sockets[0].unlink()
    for kind, values in seconds.items():
        print(f"{kind}: median {statistics.median(values):.2f} s, from {min(values):.2f} to {max(values):.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
