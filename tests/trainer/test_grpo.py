"""Reinforcement learning by real workers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import grpo_spec, prepare
from tiny_models import write_model
from zygote import Zygote

from nightsmith.trainer import runfolder
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import GrpoSpec, RunResult, RunStatus


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote("grpo")
    yield process
    process.close()


def end_of(run_dir: Path, attempt: int = 1) -> RunResult:
    result = runfolder.read_end(run_dir, attempt)
    assert result is not None
    return result


def trained(zygote: Zygote, run_dir: Path, spec: GrpoSpec) -> RunResult:
    assert zygote.run(prepare(run_dir, spec)) == 0, (run_dir / "log.txt").read_text()
    return end_of(run_dir)


def test_a_run(zygote, tmp_path) -> None:
    folder = write_model(tmp_path / "small4", "small4")
    result = trained(zygote, tmp_path / "run", grpo_spec(tmp_path, folder))
    print(result.model_dump_json(indent=1))
    for line in read_journal(tmp_path / "run" / JOURNAL):
        print(line)
    assert result.status == RunStatus.FINISHED
