"""What holds for TRL's methods on preferences and every family: real workers, tiny random models, a few steps.

The same of fine-tuning: `test_sft`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import (
    PREFERENCES,
    dpo_spec,
    end_of,
    kill_after,
    prepare,
    reward_spec,
    steps_of,
    trained,
)
from tiny_models import FAMILIES, write_model

from nightsmith.model.files import weights_digest
from nightsmith.model.load import load, load_reward_model, load_tokenizer
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.preference_rows import preference_rows
from nightsmith.trainer.spec import PostTraining, RunStatus
from nightsmith.trainer.trl_job import STEPS

torch.set_num_threads(1)
SPECS: dict[str, Callable[..., PostTraining]] = {"dpo": dpo_spec, "reward": reward_spec}
SERIES = {"dpo": ["rewards/accuracies", "rewards/margins"], "reward": ["accuracy", "margin"]}
FAST = {("llama", "dpo", "lora"), ("small4", "dpo", "full"), ("small4", "reward", "lora")}
ALL = [
    pytest.param(*each, marks=[] if each in FAST else pytest.mark.slow)
    for each in [(f, m, a) for f in FAMILIES for m in SPECS for a in ("lora", "full")]
]


@pytest.mark.parametrize(("family", "method", "adaptation"), ALL)
def test_every_method_trains_every_family_and_keeps_what_it_says(trl, tmp_path, family, method, adaptation) -> None:
    folder = write_model(tmp_path / family, family)
    base = weights_digest(folder)
    spec = SPECS[method](tmp_path, folder, adaptation=adaptation)
    result = trained(trl, tmp_path / "run", spec)
    checkpoint = Path(str(result.checkpoint))
    assert (result.status, result.num_steps) == (RunStatus.FINISHED, 3)
    assert result.checkpoint_digest == weights_digest(checkpoint) != result.initial_digest
    assert result.num_tokens > 0
    assert weights_digest(folder) == base
    assert (checkpoint / "adapter_config.json").is_file() == (adaptation == "lora")
    assert not (tmp_path / "run" / STEPS).exists()
    assert all(math.isfinite(result.metrics[name]) for name in SERIES[method])
    assert set(SERIES[method]) <= steps_of(tmp_path / "run")[-1]["metrics"].keys()
    model = (load_reward_model if method == "reward" else load)(checkpoint)
    assert load_tokenizer(checkpoint).pad_token_id is not None
    assert all(bool(torch.isfinite(weight).all()) for weight in model.parameters())


KILLED = [("dpo", "full"), ("dpo", "lora"), ("reward", "full")]


@pytest.mark.parametrize(
    ("method", "adaptation"),
    [pytest.param(*each, marks=pytest.mark.slow if i else []) for i, each in enumerate(KILLED)],
)
def test_a_run_that_was_killed_twice_ends_with_equal_weights_and_figures(trl, tmp_path, method, adaptation) -> None:
    folder = write_model(tmp_path / "small4", "small4")
    spec = SPECS[method](tmp_path, folder, adaptation=adaptation, num_steps=12, checkpoint_every_s=0.01)
    calm = trained(trl, tmp_path / "calm", spec.model_copy(update={"checkpoint_every_s": 60.0}))
    torn = prepare(tmp_path / "torn", spec)
    for attempt, step in ((1, 2), (2, 6)):
        kill_after(trl, torn, attempt, step)
    assert trl.run(torn, attempt=3) == 0, (torn / "log.txt").read_text()
    resumed = end_of(torn, attempt=3)
    assert resumed.checkpoint_digest == calm.checkpoint_digest
    assert figures(resumed.metrics) == figures(calm.metrics)


def figures(metrics: dict[str, float]) -> dict[str, float]:
    """What does not depend on the clock: the experts' health is of the steps since the journal's last line."""
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "router/"))}


def test_the_reference_of_dpo_is_the_model_before_the_first_step(trl, tmp_path) -> None:
    folder = write_model(tmp_path / "llama")
    spec = dpo_spec(tmp_path, folder, num_steps=8, batch_size=len(PREFERENCES), warmup_share=0.0, learning_rate=0.01)
    result = trained(trl, tmp_path / "run", spec)
    first = steps_of(tmp_path / "run")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["metrics"]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    margins = [margin(load(Path(path)), spec) for path in (str(folder), str(result.checkpoint))]
    assert margins[1] > margins[0] + 1


def margin(model: Any, spec: Any) -> float:
    """Mean log-probability of the chosen answers less that of the rejected ones, row by row, by torch alone."""
    rows = preference_rows(spec.data, spec.data_digest, spec.max_len, load_tokenizer(Path(spec.model.path)))
    return sum(
        logp(model, pair.prompt, pair.chosen) - logp(model, pair.prompt, pair.rejected) for pair in rows.pairs
    ) / len(rows.pairs)


@torch.inference_mode()
def logp(model: Any, prompt: list[int], answer: list[int]) -> float:
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item()


@pytest.mark.slow
def test_a_reward_model_learns_to_score_the_chosen_answers_higher(trl, tmp_path) -> None:
    folder = write_model(tmp_path / "llama")
    spec = reward_spec(tmp_path, folder, adaptation="full", num_steps=60, batch_size=12, learning_rate=0.003)
    result = trained(trl, tmp_path / "run", spec)
    assert result.metrics["eval/accuracy"] > 0.9
    assert result.metrics["eval/pairs"] == len(PREFERENCES)
    with pytest.raises(NightsmithError, match="is a reward model"):
        load(Path(str(result.checkpoint)))
