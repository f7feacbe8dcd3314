"""Stages on each other's checkpoints, by real workers, and what is recorded of their descent."""

from pathlib import Path

import pytest
from judged_study import JudgedStudy
from small_runs import TINY, dpo_spec, pretrain_spec, reward_spec, sft_spec, trained

from nightsmith.agent import history
from nightsmith.model.load import load_reward_model
from nightsmith.record.workspace import open_workspace
from nightsmith.trainer import jobrows, projection, runfolder
from nightsmith.trainer.lineage import Origin, origin
from nightsmith.trainer.spec import ModelRef, RunResult, RunSpec, SftSpec


def began_at(result: RunResult) -> ModelRef:
    """What the next stage begins with."""
    return ModelRef(path=str(result.checkpoint), weights_digest=str(result.checkpoint_digest))


@pytest.mark.slow
def test_a_model_from_scratch_is_fine_tuned_preferred_with_and_becomes_a_reward_model(trl, tmp_path) -> None:
    first = trained(trl, tmp_path / "k1", pretrain_spec(tmp_path, num_steps=5))
    folder = Path(str(first.checkpoint))
    stages = (
        sft_spec(tmp_path, folder, adaptation="full"),
        dpo_spec(tmp_path, folder),
        sft_spec(tmp_path, folder),
        reward_spec(tmp_path, folder, adaptation="full"),
    )
    before = first
    for number, stage in enumerate(stages, start=2):
        spec: RunSpec = stage.model_copy(update={"model": began_at(before)})
        result = trained(trl, tmp_path / f"k{number}", spec)
        assert origin(spec) == Origin(
            path=str(before.checkpoint), weights_digest=str(before.checkpoint_digest), job=f"k{number - 1}"
        )
        assert result.initial_digest != result.checkpoint_digest
        before = result
    model = load_reward_model(Path(str(before.checkpoint)))
    assert model.config.hidden_size == TINY.hidden_size
    assert model.config.pad_token_id is not None


def test_mlflow_and_the_view_of_a_study_name_the_job_whose_checkpoint_a_stage_began_from(tmp_path) -> None:
    ws = open_workspace(tmp_path / ".nightsmith")
    made = JudgedStudy.started(ws)
    (parent,) = made.baseline(2.9)
    run = ws.run_dir(parent)
    (run / runfolder.SPEC).write_text("{}")
    spec = SftSpec(
        model=ModelRef(path=str(run / "model"), weights_digest="d1"), data="/d.parquet", data_digest="d2", num_steps=1
    )
    row = jobrows.get(ws, parent).model_copy(update={"key": "0123456789ab", "step": "stage-2", "spec": spec})
    with ws.write() as db:
        jobrows.put(db, row)
    shown = {view.name: view for view in projection.job_views(ws, made.study)}
    assert shown["stage-2"].tags["nightsmith.began_from"] == parent
    assert shown["stage-2"].tags["nightsmith.began_from_digest"] == "d1"
    assert "nightsmith.began_from" not in shown["baseline-0"].tags
    jobs = {job.key: job for trial in history.load(ws, made.study).trials for job in trial.jobs}
    assert (jobs[row.key].began_from, jobs[row.key].began_from_digest) == (parent, "d1")
