"""The planner's own GPU-hours: charged to the study that waited for them."""

import pytest
from study_factory import StudyFactory, workspace_in_memory

from nightsmith.agent import ledger
from nightsmith.record import budget
from nightsmith.record.budget import Budget
from nightsmith.record.settings_file import FILE


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A planner's server on this machine, with two GPUs of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NIGHTSMITH_DEVICES", "cpu:0,cuda:0,cuda:1,cuda:2")
    settings = 'reserved_devices = ["cuda:0", "cuda:1"]\n[planner]\nurl = "http://127.0.0.1:8000/v1"\n'
    (tmp_path / FILE).write_text(settings)


@pytest.mark.usefixtures("two_gpus")
def test_decisions_are_charged_by_their_seconds_also_those_before_the_account_was_opened() -> None:
    with workspace_in_memory() as ws:
        study = StudyFactory(ws).created()
        ledger.keep_transcript(ws, study, "interpret", {"wall_s": 9.0})
        budget.open_account(ws, study, Budget(gpu_hours=1))
        ledger.charge(ws, study)
        assert budget.balance(ws, study).spent.gpu_hours == pytest.approx(18 / 3600)
        ledger.keep_transcript(ws, study, "propose", {"wall_s": 27.0})
        ledger.charge(ws, study)
        balance = budget.balance(ws, study)
        assert balance.spent.gpu_hours == pytest.approx(72 / 3600)
        assert balance.left.gpu_hours == pytest.approx(1 - 72 / 3600)
        assert (balance.spent.trials, balance.reserved.gpu_hours) == (0, 0)


@pytest.mark.usefixtures("two_gpus")
def test_a_planner_elsewhere_or_on_cpus_takes_no_gpu_of_this_machine(monkeypatch) -> None:
    with workspace_in_memory() as ws:
        study = StudyFactory(ws).planned()
        for url in ("https://planner.example.com/v1", None):
            monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", url or "http://127.0.0.1:8000/v1")
            monkeypatch.setenv("NIGHTSMITH_RESERVED_DEVICES", "cuda:0" if url else "cpu:0")
            ledger.keep_transcript(ws, study, "propose", {"wall_s": 9.0})
        assert budget.balance(ws, study).spent.gpu_hours == 0
