import json
import math
import resource
from pathlib import Path

import pytest
import torch
from small_runs import TINY, pretrain_spec
from torch import nn

from nightsmith.model.files import weights_digest
from nightsmith.model.load import load, load_weights
from nightsmith.model.presets import BOS, EOS
from nightsmith.model.small4 import build
from nightsmith.trainer import checkpoint
from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.checkpoint import KEPT, TrainState, folder, latest, model_digest, restore, save
from nightsmith.trainer.journal import Journal
from nightsmith.trainer.losses import tail_mean
from nightsmith.trainer.optimizers import Muon, make_optimizer, orthogonal
from nightsmith.trainer.pretrain import Pretraining, next_token_loss, visible_keys
from nightsmith.trainer.spec import PretrainSpec, RunStatus
from nightsmith.trainer.text import Windows, read_tokens

torch.set_num_threads(1)


@pytest.fixture
def spec(tmp_path: Path) -> PretrainSpec:
    return pretrain_spec(tmp_path)


def trained(spec: PretrainSpec, num_steps: int = 3, seed: int = 0):
    """A model after some real steps, with its optimizer."""
    model = build(TINY, seed=seed).train()
    optimizer = make_optimizer(model.parameters(), spec)
    for step in range(num_steps):
        batch = torch.randint(0, 256, (4, 33), generator=torch.Generator().manual_seed(step))
        next_token_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_weights_optimizer_and_generator_come_back_bit_equal(spec, tmp_path) -> None:
    model, optimizer = trained(spec)
    save(tmp_path, model, optimizer, TrainState("d", step=3, losses=[1.0, 0.1 + 0.2, math.pi], train_s=1.5))
    expected = torch.rand(5)
    other, other_optimizer = trained(spec, num_steps=1, seed=9)
    load_weights(other, folder(tmp_path, 3))
    state = restore(folder(tmp_path, 3), other_optimizer)
    assert torch.equal(torch.rand(5), expected)
    assert state == TrainState("d", step=3, losses=[1.0, 0.1 + 0.2, math.pi], train_s=1.5)
    assert model_digest(other) == model_digest(model) == weights_digest(folder(tmp_path, 3))
    for ours, theirs in zip(optimizer.state.values(), other_optimizer.state.values(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_checkpoint_is_loadable_as_a_model(spec, tmp_path) -> None:
    model, optimizer = trained(spec)
    save(tmp_path, model, optimizer, TrainState("d", step=3))
    assert model_digest(load(folder(tmp_path, 3))) == model_digest(model)


def test_only_the_newest_checkpoints_are_kept(spec, tmp_path) -> None:
    model, optimizer = trained(spec)
    for step in range(5):
        save(tmp_path, model, optimizer, TrainState("d", step=step))
    assert latest(tmp_path) == folder(tmp_path, 4)
    assert len(list(tmp_path.glob("checkpoint-*"))) == KEPT


def test_a_damaged_newest_checkpoint_is_passed_over_and_later_replaced(spec, tmp_path) -> None:
    model, optimizer = trained(spec)
    for step in (1, 2):
        save(tmp_path, model, optimizer, TrainState("d", step=step))
    weights = folder(tmp_path, 2) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert latest(tmp_path) == folder(tmp_path, 1)
    save(tmp_path, model, optimizer, TrainState("d", step=2))
    assert latest(tmp_path) == folder(tmp_path, 2)
    assert latest(tmp_path / "nowhere") is None


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_one_before_it_and_no_rest(spec, tmp_path) -> None:
    model, optimizer = trained(spec)
    save(tmp_path, model, optimizer, TrainState("d", step=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, model, optimizer, TrainState("d", step=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert latest(tmp_path) == folder(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def pretraining(spec: PretrainSpec, run_dir: Path) -> Pretraining:
    attempt = Attempt(run_dir, ("cpu:0",), Journal(run_dir / "events.jsonl", 1), ending=lambda: None)
    tokens = read_tokens(Path(spec.data), spec.data_digest)
    return Pretraining(attempt, spec, Windows(tokens, TINY.seq_len, TINY.batch_size, spec.seed))


def test_a_loss_that_is_not_finite_ends_the_run_before_it_reaches_the_weights(spec, tmp_path) -> None:
    training = pretraining(spec, tmp_path)
    with torch.no_grad():
        training.model.lm_head.weight[0, 0] = math.inf
    before = model_digest(training.model)
    with pytest.raises(Ended, match="Lower the learning rate") as ended:
        training.train()
    assert ended.value.status == RunStatus.NOT_FINITE
    assert model_digest(training.model) == before
    assert latest(tmp_path) is None


def test_training_lowers_the_loss_far_below_chance(spec, tmp_path) -> None:
    training = pretraining(spec.model_copy(update={"num_steps": 60, "learning_rate": 1e-2}), tmp_path)
    training.train()
    state = checkpoint.restore(folder(tmp_path, 60), make_optimizer(training.model.parameters(), spec))
    assert state.losses[0] == pytest.approx(math.log(259), abs=0.1)
    assert tail_mean(state.losses) < 2.5


def test_seed_and_balancing_change_the_training_and_equal_specs_repeat_it(spec, tmp_path) -> None:
    def digest(name: str, **changes: float | str) -> str:
        (tmp_path / name).mkdir()
        training = pretraining(spec.model_copy(update={"num_steps": 5, **changes}), tmp_path / name)
        training.train()
        return weights_digest(folder(tmp_path / name, 5))

    first = digest("a")
    assert digest("b") == first
    others = {"c": {"seed": 1}, "d": {"router_aux_loss_coef": 0.1}, "e": {"router_z_loss_coef": 0.1}}
    others |= {"f": {"balance_mode": "bias"}, "g": {"separate_documents": True}}
    assert len({first, *(digest(name, **changes) for name, changes in others.items())}) == 6


def test_documents_that_are_kept_apart_are_predicted_as_if_each_were_alone() -> None:
    torch.manual_seed(0)
    model = build(TINY, seed=0).eval()
    first, second = ([BOS, *torch.randint(0, 256, (length,)).tolist(), EOS] for length in (9, 20))
    both, visible = torch.tensor([first + second]), visible_keys(torch.tensor([first + second]))
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([text])).logits for text in (first, second)]
        apart, across = (model(input_ids=both, attention_mask=mask).logits for mask in (visible, None))
    torch.testing.assert_close(apart, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(across, apart, atol=1e-3)


def test_the_reported_health_of_the_experts_is_that_of_the_last_steps_also_after_a_resume_that_trains_no_more(
    spec, tmp_path
) -> None:
    training = pretraining(spec.model_copy(update={"num_steps": 40}), tmp_path)
    training.train()
    facts = training._attempt.facts.metrics
    resumed = pretraining(spec.model_copy(update={"num_steps": 40}), tmp_path)
    assert resumed._attempt.facts.metrics["router/max_vio"] == facts["router/max_vio"]


def test_the_journal_says_in_what_a_run_computes(spec, tmp_path) -> None:
    pretraining(spec.model_copy(update={"precision": "float32"}), tmp_path)
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (event,) = (event for event in told if event["kind"] == "arithmetic")
    assert (event["attention"], event["experts"], event["products"]) == ("causal_blocks", "segments", "float32")


def test_the_reported_loss_is_the_mean_of_the_last_steps() -> None:
    assert tail_mean([5.0]) == 5.0
    assert tail_mean([9.0] * 95 + [1.0, 2.0, 3.0, 4.0, 5.0]) == 3.0


def test_muon_takes_the_matrices_of_linear_layers_and_experts_but_the_head_and_routers(spec, tmp_path) -> None:
    training = pretraining(spec.model_copy(update={"optimizer": "muon"}), tmp_path)
    taken = {id(each) for each in training._optimizer.param_groups[-1]["params"]}
    left = {name for name, parameter in training.model.named_parameters() if id(parameter) not in taken}
    assert {name for name in left if "norm" not in name} == {
        "model.embed_tokens.weight", "model.layers.0.mlp.gate.weight", "lm_head.weight",
    }  # fmt: skip


def test_muon_steps_each_matrix_of_a_stack_as_torchs_own_does() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 24, 16)
    alone = [nn.Parameter(matrix.clone()) for matrix in (*stack, stack[0].T)]
    ours = [nn.Parameter(stack.clone()), nn.Parameter(stack[0].T.clone())]
    theirs = torch.optim.Muon(alone, lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    stacked = Muon(ours, lr=0.1, weight_decay=0.2)
    for _ in range(3):
        grads = torch.randn(3, 24, 16)
        for parameter, grad in zip((*alone, *ours), (*grads, grads[0].T, grads, grads[0].T), strict=True):
            parameter.grad = grad.clone()
        theirs.step()
        stacked.step()
    expected = torch.stack(list(alone[:3]))
    torch.testing.assert_close(ours[0], expected, atol=0.005, rtol=0)
    torch.testing.assert_close(ours[1], alone[3], atol=0.005, rtol=0)
    assert (ours[0] - stack).abs().mean() > 0.05


def test_updates_of_muon_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((40, 24), (24, 40), (4, 24, 24)):
        sizes = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
        assert sizes.max() < 1.3
        assert sizes.quantile(0.1) > 0.3


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_goes_on_from_a_checkpoint_takes_the_steps_of_one_that_was_never_left(
    spec, tmp_path, optimizer
) -> None:
    asked = spec.model_copy(update={"optimizer": optimizer, "num_steps": 6})
    for name in ("whole", "left"):
        (tmp_path / name).mkdir()
    whole = pretraining(asked, tmp_path / "whole")
    whole.train()
    left = pretraining(asked, tmp_path / "left")
    with left.computing():
        for _ in range(3):
            left.step()
    left._save()
    again = pretraining(asked, tmp_path / "left")
    again.train()
    assert again.losses == whole.losses
    assert model_digest(again.model) == model_digest(whole.model)


def test_muon_is_refused_where_matrices_are_split(spec) -> None:
    for layout in ({"fsdp": 2}, {"tp": 2}):
        with pytest.raises(ValueError, match="Muon works on whole matrices"):
            PretrainSpec.model_validate({**spec.model_dump(), "optimizer": "muon", "parallel": layout})


def test_weight_decay_falls_on_matrices_only(spec) -> None:
    model = build(TINY, seed=0)
    decayed, kept = make_optimizer(model.parameters(), spec).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (spec.weight_decay, 0.0)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert all("norm" in name for name, p in model.named_parameters() if any(p is k for k in kept["params"]))
