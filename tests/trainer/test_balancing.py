"""Balancing under TRL's own SFTTrainer, which replaces the model's forward, against the same steps by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import write_texts
from torch.nn import functional as F

from nightsmith.model.bytes_tokenizer import bytes_tokenizer
from nightsmith.model.files import weights_digest
from nightsmith.model.health import take_use
from nightsmith.model.load import load
from nightsmith.model.presets import PRESETS
from nightsmith.model.router import end_step, routers
from nightsmith.model.small4 import Small4ForCausalLM, build
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.journal import JOURNAL, Journal, read_journal
from nightsmith.trainer.spec import ModelRef, SftSpec

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
NANO = PRESETS["nano"]
LENGTHS = (40, 33, 40, 21)


def rows() -> list[list[int]]:
    numbers = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (length,), generator=numbers).tolist() for length in LENGTHS]


def train_by_trl(model: Small4ForCausalLM, folder: Path, *, accumulated: int = 1, attached: bool = True) -> Any:
    """Two SGD steps on all the rows."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from nightsmith.trainer.balancing import attach_balancing

    settings = SFTConfig(
        output_dir=str(folder), max_steps=2, per_device_train_batch_size=len(LENGTHS) // accumulated,
        gradient_accumulation_steps=accumulated, optim="sgd", learning_rate=0.5, lr_scheduler_type="constant",
        max_grad_norm=0.0, use_cpu=True, bf16=False, activation_checkpointing=False, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_dict({"input_ids": rows(), "labels": rows()})
    trainer = SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=bytes_tokenizer())
    if attached:
        attach_balancing(trainer)
    trainer.train()
    return trainer


def train_by_hand(model: Small4ForCausalLM) -> None:
    """The same two steps, padded on the right."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.5)
    ids = torch.full((len(LENGTHS), max(LENGTHS)), 258)
    for row, tokens in zip(ids, rows(), strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    for _ in range(2):
        logits = model(ids, attention_mask=mask.long(), use_cache=False).logits
        F.cross_entropy(logits[:, :-1][mask[:, 1:]], ids[:, 1:][mask[:, 1:]]).backward()
        optimizer.step()
        optimizer.zero_grad()
        end_step(model)


def router_weights(model: Small4ForCausalLM) -> torch.Tensor:
    return torch.stack([router.weight.detach() for router in routers(model)])


def biases(model: Small4ForCausalLM) -> torch.Tensor:
    return torch.stack([router.bias_E for router in routers(model)])


def test_trl_trains_the_losses_of_the_routers_once(tmp_path) -> None:
    strong = {"router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.2}
    ours, by_hand, unbalanced = build(NANO, seed=0, **strong), build(NANO, seed=0, **strong), build(NANO, seed=0)
    trainer = train_by_trl(ours, tmp_path)
    assert trainer.model.forward.__func__ is not Small4ForCausalLM.forward
    for model in (by_hand, unbalanced):
        train_by_hand(model)
    torch.testing.assert_close(router_weights(ours), router_weights(by_hand), atol=1e-6, rtol=1e-4)
    assert (router_weights(ours) - router_weights(unbalanced)).abs().max() > 1e-3
    assert ours.config.router_aux_loss_coef == 0.5
    assert not any("aux_loss" in line for line in trainer.state.log_history)


def test_under_trl_the_loss_that_trl_adds_by_itself_trains_nothing(tmp_path) -> None:
    ours, by_hand = (build(NANO, seed=0, router_aux_loss_coef=0.5) for _ in range(2))
    trainer = train_by_trl(ours, tmp_path, attached=False)
    train_by_hand(by_hand)
    assert any("aux_loss" in line for line in trainer.state.log_history)
    torch.testing.assert_close(router_weights(ours), router_weights(by_hand), atol=1e-6, rtol=1e-4)


def test_under_trl_biases_move_once_a_step_by_the_loads_of_all_its_micro_batches(tmp_path) -> None:
    ours, by_hand = (build(NANO, seed=0, balance_mode="bias", router_bias_update_rate=0.01) for _ in range(2))
    train_by_trl(ours, tmp_path, accumulated=2)
    train_by_hand(by_hand)
    assert biases(by_hand).any()
    torch.testing.assert_close(biases(ours), biases(by_hand), atol=1e-7, rtol=0)
    assert take_use(ours)[0].load == take_use(by_hand)[0].load


@pytest.mark.parametrize("train_router", [False, True])
def test_full_fine_tuning_trains_the_routers_on_demand_only_and_tells_how_the_experts_fare(
    train_router: bool, tmp_path
) -> None:
    from nightsmith.trainer import sft

    base = tmp_path / "base"
    build(NANO, seed=0, balance_mode="bias").save_pretrained(base)
    spec = SftSpec(
        model=ModelRef(path=str(base), weights_digest=weights_digest(base)), rows="text", adaptation="full",
        data=str(tmp_path / "rows.parquet"), data_digest=write_texts(tmp_path / "rows.parquet"), max_len=64,
        num_steps=3, train_router=train_router,
    )  # fmt: skip
    attempt = Attempt(tmp_path, ("cpu:0",), Journal(tmp_path / JOURNAL, 1), ending=lambda: None)
    sft.run(attempt, spec)
    before, after = load(base), load(Path(str(attempt.facts.checkpoint)))
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
    assert torch.equal(router_weights(before), router_weights(after)) is not train_router
    assert bool(biases(after).any()) is train_router
    assert attempt.facts.metrics["router/entropy"] > 0.5
    steps = [line for line in read_journal(tmp_path / JOURNAL) if line["kind"] == "step"]
    assert len(steps[-1]["router"]) == NANO.num_layers
