"""Rewards that cheat, in real runs: the sandbox denies it or a monitor stops it, and nothing of it can be promoted."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from cheating_rewards import CHEATS, SUBSTRING
from small_runs import chat_suite, grpo_spec, prepare
from tiny_models import write_model
from zygote import Zygote

from nightsmith.evals import answers
from nightsmith.evals.evidence import verify
from nightsmith.evals.rewards import CommandReward
from nightsmith.evals.types import Decision, EvaluateSpec, Evidence
from nightsmith.model.files import weights_digest
from nightsmith.record.digest import file_digest
from nightsmith.trainer import runfolder
from nightsmith.trainer.halted import EVIDENCE
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.monitors import MonitorLimits
from nightsmith.trainer.spec import RunResult, RunStatus

pytestmark = pytest.mark.slow
FEW = {"batch_size": 1, "num_generations": 2, "num_steps": 4, "max_completion_length": 3}
"""Few answers, as each costs a scoring."""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote("grpo")
    yield process
    process.close()


def command(folder: Path, text: str, **settings: Any) -> CommandReward:
    path = folder / "reward.py"
    path.write_text(dedent(text))
    return CommandReward(path=str(path), file_digest=file_digest(path), **settings)


def halted(zygote: Zygote, run_dir: Path, monitor: str) -> RunResult:
    """The result of a run that a monitor stopped, which cannot be promoted: neither as it is nor by another job."""
    assert zygote.run(run_dir) == 1
    result = runfolder.read_end(run_dir, 1)
    assert result is not None
    assert (result.status, result.evaluation) == (RunStatus.HALTED, None), result.reason
    assert f"monitor {monitor}" in result.reason
    assert json.loads((run_dir / EVIDENCE / "alarm.json").read_text())["monitor"] == monitor
    assert result.checkpoint_digest == weights_digest(Path(str(result.checkpoint)))
    suite = chat_suite(run_dir)
    evidence = Evidence(
        key=result.key, status=result.status, suite=suite, data_found=suite.data_digest, items_found="0" * 64,
        checkpoint_digest=result.checkpoint_digest, checkpoint_found=result.checkpoint_digest,
        initial_digest=result.initial_digest, num_tokens=result.num_tokens, train_s=result.train_s,
    )  # fmt: skip
    verdict = verify(evidence, "exact_match")
    assert verdict is not None
    assert verdict.decision is Decision.UNVERIFIED
    require_refused_by_other_jobs(zygote, run_dir, result)
    return result


def require_refused_by_other_jobs(zygote: Zygote, run_dir: Path, result: RunResult) -> None:
    spec = EvaluateSpec(
        checkpoint=str(result.checkpoint), checkpoint_digest=str(result.checkpoint_digest), suite=chat_suite(run_dir)
    )
    looked = prepare(run_dir / "evaluate", spec)
    assert zygote.run(looked) == 1
    ended = runfolder.read_end(looked, 1)
    assert ended is not None
    assert (ended.status, ended.evaluation) == (RunStatus.FAILED, None)
    assert "whose training the monitor" in ended.reason


@pytest.mark.parametrize("name", CHEATS)
def test_a_reward_that_reaches_for_what_it_must_not_have_is_denied_and_its_run_stopped(zygote, tmp_path, name) -> None:
    folder, evals = write_model(tmp_path / "model", "small4"), Path(answers.__file__)
    before = file_digest(evals)
    paths = {"answers": str(tmp_path / "pairs.parquet"), "evals": str(evals)}
    text = CHEATS[name].replace("{answers!r}", repr(paths["answers"])).replace("{evals!r}", repr(paths["evals"]))
    spec = grpo_spec(tmp_path, folder, rewards=(command(tmp_path, text, timeout_s=0.2),), **FEW)
    run_dir = prepare(tmp_path / "run", spec)
    result = halted(zygote, run_dir, "failed_scorings")
    assert result.metrics["rewards/failed_share"] == 1.0
    assert (run_dir / EVIDENCE / "failures.txt").read_text()
    assert file_digest(evals) == before
    assert any(line["kind"] == "sandbox" and line["isolates"] for line in read_journal(run_dir / JOURNAL))


def test_a_reward_that_pays_for_a_letter_is_found_out_by_the_verifier_and_its_run_stopped(zygote, tmp_path) -> None:
    folder = write_model(tmp_path / "model", "llama")
    spec = grpo_spec(
        tmp_path, folder, rewards=(command(tmp_path, SUBSTRING),), num_steps=200, batch_size=4, num_generations=8,
        monitors=MonitorLimits(window=5),
    )  # fmt: skip
    run_dir = prepare(tmp_path / "run", spec)
    result = halted(zygote, run_dir, "reward_hacking")
    assert result.num_steps < 200
    figures = [json.loads(line) for line in (run_dir / EVIDENCE / "figures.jsonl").read_text().splitlines()]
    assert figures[-1]["reward"] > figures[0]["reward"]
    kept = [json.loads(line) for line in (run_dir / EVIDENCE / "completions.jsonl").read_text().splitlines()]
    assert {line["rewards"]["command"] for line in kept if "e" in line["completion"]} == {1.0}
    assert {line["verifier"] for line in kept} == {0.0}
