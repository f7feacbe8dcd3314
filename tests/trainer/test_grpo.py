"""Reinforcement learning by real workers: what is trained, drawn, killed and resumed."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small_runs import PAIRS, chat_suite, end_of, grpo_spec, kill_after, prepare, steps_of, trained
from tiny_models import FAMILIES, TEMPLATE, write_model
from zygote import Zygote

from nightsmith.model.chat_rows import ChatFormat
from nightsmith.model.files import weights_digest
from nightsmith.model.load import load_tokenizer
from nightsmith.trainer import runfolder
from nightsmith.trainer.grpo_rows import Prompt, PromptRows, order, prompt_rows
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import RunStatus

ALL = [(family, adaptation) for family in FAMILIES for adaptation in ("lora", "full")]
SLOW = [pytest.param(*each, marks=[] if each == ("small4", "full") else pytest.mark.slow) for each in ALL]
"""Every combination; all but one are left to the longer tests."""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote("grpo")
    yield process
    process.close()


@pytest.mark.parametrize(("family", "adaptation"), SLOW)
def test_a_run_ends_with_changed_weights_answers_and_figures_under_trls_names(
    zygote, tmp_path, family, adaptation
) -> None:
    folder = write_model(tmp_path / family, family, chat_template=TEMPLATE if family == "qwen3_moe" else None)
    spec = grpo_spec(tmp_path, folder, adaptation=adaptation, num_steps=6, dev_suite=chat_suite(tmp_path, PAIRS[:3]))
    result = trained(zygote, tmp_path / "run", spec)
    checkpoint = Path(str(result.checkpoint))
    assert (result.status, result.num_steps) == (RunStatus.FINISHED, 6)
    assert result.checkpoint_digest == weights_digest(checkpoint)
    assert result.initial_digest not in (None, result.checkpoint_digest)
    assert (checkpoint / "adapter_config.json").is_file() == (adaptation == "lora")
    assert {"reward", "rewards/format/mean", "verifier/mean", "entropy", "completions/mean_length"} <= set(
        result.metrics
    )
    assert result.num_tokens > 6 * 8 * 20
    assert result.evaluation is not None
    assert {"exact_match", "output_tokens"} <= result.evaluation.metrics.keys()
    assert 0 <= steps_of(tmp_path / "run")[-1]["metrics"]["reward"] <= 1


RESUMED = [
    pytest.param("small4", "full", {}),
    pytest.param(
        "small4", "full", {"steps_per_generation": 2, "num_iterations": 2, "beta": 0.1}, marks=pytest.mark.slow
    ),
    pytest.param("llama", "lora", {"beta": 0.1}, marks=pytest.mark.slow),
    pytest.param("gpt_oss", "full", {"importance_sampling_level": "token"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "adaptation", "settings"), RESUMED)
def test_a_run_that_was_killed_twice_draws_the_same_answers_and_ends_with_equal_weights(
    zygote, tmp_path, family, adaptation, settings: dict[str, Any]
) -> None:
    folder = write_model(tmp_path / family, family)
    spec = grpo_spec(tmp_path, folder, adaptation=adaptation, num_steps=24, checkpoint_every_s=0.01, **settings)
    calm = trained(zygote, tmp_path / "calm", spec.model_copy(update={"checkpoint_every_s": 60.0}))
    torn = prepare(tmp_path / "torn", spec)
    for attempt, step in ((1, 4), (2, 12)):
        kill_after(zygote, torn, attempt, step)
    kept = [line["step"] for line in read_journal(torn / JOURNAL) if line["kind"] == "checkpoint"]
    assert all(step % spec.boundary == 0 for step in kept)
    assert zygote.run(torn, attempt=3) == 0, (torn / "log.txt").read_text()
    resumed = end_of(torn, attempt=3)
    assert resumed.checkpoint_digest == calm.checkpoint_digest != calm.initial_digest
    same = ("reward", "entropy", "completions/mean_length", "train/loss", *(["kl"] if spec.beta else []))
    assert {name: resumed.metrics[name] for name in same} == {name: calm.metrics[name] for name in same}
    assert resumed.num_tokens == calm.num_tokens


@pytest.mark.slow
def test_a_run_that_was_killed_ten_times_at_random_ends_as_the_undisturbed_one(zygote, tmp_path) -> None:
    folder = write_model(tmp_path / "llama")
    spec = grpo_spec(tmp_path, folder, num_steps=80, checkpoint_every_s=0.02, num_iterations=2)
    calm = trained(zygote, tmp_path / "calm", spec.model_copy(update={"checkpoint_every_s": 60.0}))
    torn, generator = prepare(tmp_path / "torn", spec), random.Random(0)
    for attempt in range(1, 11):
        pid = zygote.start(torn, attempt)
        time.sleep(0.25 + generator.uniform(0.0, 0.5))  # at work, or still reading
        os.kill(pid, signal.SIGKILL)
        assert zygote.wait(pid) in (-signal.SIGKILL, 0)
        if runfolder.read_end(torn, attempt) is not None:
            break
    else:
        attempt = 11
        assert zygote.run(torn, attempt) == 0, (torn / "log.txt").read_text()
    assert attempt > 3
    assert end_of(torn, attempt).checkpoint_digest == calm.checkpoint_digest
    assert end_of(torn, attempt).metrics["reward"] == calm.metrics["reward"]


@pytest.mark.slow
@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_the_divergence_is_that_from_the_model_that_was_started_from(zygote, tmp_path, adaptation) -> None:
    folder = write_model(tmp_path / "llama")
    spec = grpo_spec(tmp_path, folder, adaptation=adaptation, beta=0.05, num_steps=30, batch_size=4, num_generations=8)
    trained(zygote, tmp_path / "run", spec)
    divergence = [line["metrics"]["kl"] for line in steps_of(tmp_path / "run")]
    assert divergence[0] == pytest.approx(0.0, abs=1e-5)
    assert divergence[-1] > 1e-3


@pytest.mark.slow
def test_gspo_and_grpo_both_learn_what_is_paid_for(zygote, tmp_path) -> None:
    folder = write_model(tmp_path / "llama")
    for level in ("sequence", "token"):
        spec = grpo_spec(
            tmp_path, folder, num_steps=60, batch_size=4, num_generations=8, importance_sampling_level=level,
            num_iterations=2,
        )  # fmt: skip
        result = trained(zygote, tmp_path / level, spec)
        assert result.metrics["reward"] > steps_of(tmp_path / level)[0]["metrics"]["reward"] + 0.1


def test_prompts_are_those_of_evaluation_and_the_last_turn_is_the_reference(tmp_path) -> None:
    folder = write_model(tmp_path / "small4", "small4")
    spec = grpo_spec(tmp_path, folder)
    tokenizer = load_tokenizer(folder)
    rows = prompt_rows(spec, tokenizer)
    assert [(each.messages[-1]["content"], each.reference) for each in rows.prompts.values()] == list(PAIRS)
    turns: Any = [{"role": "user", "content": PAIRS[0][0]}, {"role": "assistant", "content": PAIRS[0][1]}]
    (row,) = ChatFormat(tokenizer).last_answers([turns])
    assert rows.prompts["r000"].ids == row.ids[: row.answer_start]
    longest = max(len(each.ids) for each in rows.prompts.values())
    cut = prompt_rows(spec.model_copy(update={"max_len": longest + spec.max_completion_length - 1}), tokenizer)
    assert cut.num_too_long > 0


@given(num_rows=st.integers(1, 12), passes=st.integers(1, 4), more=st.integers(0, 11), seed=st.integers(0, 99))
def test_every_prompt_is_drawn_once_before_any_is_drawn_again(num_rows: int, passes: int, more: int, seed: int) -> None:
    prompts = {f"r{i}": Prompt(f"r{i}", "", (), "", ()) for i in range(num_rows)}
    rows: Any = PromptRows(prompts, None)  # type: ignore[arg-type]
    drawn = order(rows, passes * num_rows + more % num_rows, seed)
    assert drawn == order(rows, len(drawn), seed)
    assert drawn[:num_rows] == order(rows, num_rows, seed)
    assert set(Counter(drawn).values()) <= {passes, passes + 1}


def test_answers_are_asked_of_a_server_by_its_url_and_defaults_are_those_for_mixtures_of_experts(tmp_path) -> None:
    from trl import GRPOConfig  # pyright: ignore[reportPrivateImportUsage]

    from nightsmith.trainer.grpo import settings

    spec = grpo_spec(tmp_path, write_model(tmp_path / "small4", "small4"), vllm_url="http://gpu:8000")
    shared: dict[str, Any] = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "bf16": False}
    config = GRPOConfig(**settings(spec, shared))
    assert (config.use_vllm, config.vllm_mode, config.vllm_server_base_url) == (True, "server", "http://gpu:8000")
    assert config.vllm_importance_sampling_correction
    assert (config.importance_sampling_level, config.loss_type, config.beta) == ("sequence", "grpo", 0.0)
    assert not spec.train_router
    assert (config.generation_batch_size, config.num_generations) == (spec.batch_size * 4, 4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_completion_length": 64}, "no room for a prompt"),
        ({"rewards": ()}, "at least 1"),
        ({"num_generations": 1}, "greater"),
    ],
)
def test_a_spec_that_cannot_train_is_refused(tmp_path, fields, said) -> None:
    with pytest.raises(ValidationError, match=said):
        grpo_spec(tmp_path, write_model(tmp_path / "small4", "small4"), **fields)
