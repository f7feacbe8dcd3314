"""A real job that is far behind the study's earlier ones is stopped by whoever drives the study, and stays stopped."""

import asyncio
import json
from pathlib import Path

import pytest
from langgraph.types import Interrupt
from small_runs import pretrain_spec
from study_factory import StudyFactory

from nightsmith.agent import pruning, rounds
from nightsmith.agent.services import Services
from nightsmith.agent.study import Driver
from nightsmith.record import approvals
from nightsmith.record.approvals import Envelope
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.journal import JOURNAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
LIMIT_S = 90.0
FAR_BETTER = 0.5
"""Training loss of the earlier runs, nats per byte."""


class Nobody:
    """A desk that nobody sits at."""

    def progress(self, keys):
        del keys

    def show(self, event):
        del event


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTSMITH_DEVICES", "cpu:0")
    workspace = open_workspace(tmp_path / ".nightsmith")
    yield workspace
    for row in jobs.rows(workspace):
        if row.key and row.role == "trial":
            jobs.stop(workspace, row.key, grace_s=0)


def test_a_hopeless_trial_is_stopped_and_does_not_go_on(ws, tmp_path):
    factory, spec = StudyFactory(ws), pretrain_spec(tmp_path, num_steps=4000, learning_rate=1e-6)
    study = factory.planned()
    earlier = factory.job(study, "baseline-0", 0, "baseline", 2.0, seed=0)
    as_earlier(ws, earlier, spec)
    envelope = Envelope(study=study, spec_digest="0", plan_digest="0", kinds=("pretrain",), time_limit_s=LIMIT_S)
    approvals.approve(ws, envelope, how="flag")
    key = jobs.start(ws, spec, study=study, step="trial-1", trial=1, role="trial", time_limit_s=LIMIT_S)
    driver = Driver(Services(ws=ws, planner=lambda: None, cwd=Path()), study, Nobody())
    asyncio.run(driver._wait([Interrupt(value={"kind": "job", "key": key}, id="1")]))
    result = jobs.poll(ws, key)
    assert result is not None
    assert 0 < result.num_steps < 4000, result
    assert pruning.reasons(ws, study)[1][0] == key
    assert not rounds._may_go_on(ws, study, key)


def as_earlier(ws, key, spec):
    """Make a finished job one that trained on the same data, and much better."""
    with ws.write() as db:
        row = jobs.rows(ws)[0].model_copy(update={"spec": spec})
        db.execute("UPDATE jobs SET spec = ? WHERE key = ?", (row.spec.model_dump_json(), key))
    lines = [{"kind": "step", "step": step, "num_steps": 40, "loss": FAR_BETTER} for step in range(1, 41)]
    (ws.run_dir(key) / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
