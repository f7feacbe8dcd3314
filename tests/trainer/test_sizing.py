"""Jobs that would not fit are refused before they start, for programs first."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import dpo_spec, grpo_spec, pretrain_spec, reward_spec, sft_spec
from tiny_models import write_model

from nightsmith.model.capacity.units import GIB
from nightsmith.model.presets import PRESETS
from nightsmith.record import approvals, audit, budget, events
from nightsmith.record.approvals import Envelope
from nightsmith.record.budget import Budget
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.sizing import TooLarge, lacking
from nightsmith.trainer.spec import RunSpec

AMPLE = 1 << 50
HUGE = PRESETS["mini"].model_copy(update={"hidden_size": 16384, "num_layers": 64, "expert_size": 8192})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", "qwen3_moe")


def specs(folder: Path, model: Path) -> list[RunSpec]:
    made = (
        make(folder, model, adaptation=how) for make in (sft_spec, dpo_spec, reward_spec) for how in ("lora", "full")
    )
    return [pretrain_spec(folder), *made]


def test_every_kind_fits_where_there_is_room_and_nothing_fits_where_there_is_none(tmp_path: Path, model: Path) -> None:
    for spec in specs(tmp_path, model):
        assert lacking(spec, 8 * GIB, AMPLE) == ()
        assert [each.resource for each in lacking(spec, GIB, 0)] == ["memory", "disk"], spec.kind


@pytest.mark.parametrize(("make", "sequences"), [(sft_spec, 1), (dpo_spec, 2), (reward_spec, 2), (grpo_spec, 4)])
def test_a_refusal_names_ways_that_fit_the_nearest_first(
    tmp_path: Path, model: Path, make: Any, sequences: int
) -> None:
    spec = make(tmp_path, model, adaptation="full", batch_size=10**6)
    (refusal,) = lacking(spec, 4 * GIB, AMPLE)
    assert refusal.needed_bytes > refusal.available_bytes
    nearest = refusal.remedies[0]
    assert nearest.needed_bytes <= refusal.available_bytes
    rows = nearest.workload.micro_batch // sequences
    assert nearest.change == f"a batch_size of {rows}"
    assert lacking(spec.model_copy(update={"batch_size": rows}), 4 * GIB, AMPLE) == ()


def test_a_length_that_no_row_has_is_not_held_against_a_run(tmp_path: Path, model: Path) -> None:
    assert lacking(sft_spec(tmp_path, model, max_len=10**6), 4 * GIB, AMPLE) == ()


def test_a_pair_takes_the_room_of_two_rows(tmp_path: Path, model: Path) -> None:
    pairs = lacking(reward_spec(tmp_path, model, batch_size=50_000, max_len=64), GIB, AMPLE)
    rows = lacking(reward_spec(tmp_path, model, batch_size=25_000, max_len=64), GIB, AMPLE)
    assert pairs[0].needed_bytes > 1.8 * rows[0].needed_bytes


def test_a_job_that_cannot_fit_is_not_started_and_the_record_says_what_would(tmp_path: Path) -> None:
    ws = open_workspace(tmp_path / ".nightsmith")
    budget.open_account(ws, "s1", Budget())
    envelope = Envelope(study="s1", spec_digest="0", plan_digest="0", kinds=("pretrain",), time_limit_s=60)
    approvals.approve(ws, envelope, how="flag")
    with pytest.raises(TooLarge, match="of memory") as refused:
        jobs.start(ws, pretrain_spec(tmp_path, architecture=HUGE), study="s1", step="a", role="trial", time_limit_s=60)
    assert refused.value.refusals[0].resource == "memory"
    assert jobs.rows(ws) == []
    (event,) = [event for event in events.read(ws, study="s1") if event.kind == "refused"]
    assert event.data["refusals"][0]["needed_bytes"] == refused.value.refusals[0].needed_bytes
    assert audit.verify(ws) is None
