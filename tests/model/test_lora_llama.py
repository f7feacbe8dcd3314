import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from tiny_llama import WORDS, write_tiny_llama
from transformers import LlamaForCausalLM

from nightsmith.model.lora_kernels import kernels
from nightsmith.model.lora_llama import PROJECTIONS, Batch, LoraShape, load_lora_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"))


def ours(folder, shape):
    torch.manual_seed(1)
    model = load_lora_llama(folder, shape, kernels(compiled=False))
    for name, parameter in model.adapters.items():
        if name.endswith("B"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def oracle(folder, shape, state):
    """The model of transformers and peft in float32 with the same adapters."""
    layers = list(range(shape.first_layer, 3))
    config = LoraConfig(
        r=shape.rank, lora_alpha=int(shape.alpha), target_modules=list(PROJECTIONS), layers_to_transform=layers
    )
    model = get_peft_model(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), config)
    assert not set_peft_model_state_dict(model, state).unexpected_keys
    return model


def example(rows=3, length=10, completion=4):
    torch.manual_seed(2)
    ids = torch.randint(2, len(WORDS), (rows, length))
    targets = torch.full((rows, length), -100)
    targets[:, -completion - 1 : -1] = ids[:, -completion:]
    return ids, targets


def oracle_loss(model, ids, targets):
    logits = model(input_ids=ids).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


@pytest.mark.parametrize("first_layer", [0, 2])
def test_loss_and_gradients_agree_with_transformers_and_peft(folder, first_layer):
    shape = LoraShape(rank=4, alpha=8, first_layer=first_layer)
    model, (ids, targets) = ours(folder, shape), example()
    loss = model(Batch(torch.empty(0, dtype=torch.long), ids, targets))
    loss.backward()
    peft = oracle(folder, shape, model.peft_state())
    expected = oracle_loss(peft, ids, targets)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)

    theirs = {n.replace(".default", ""): p.grad for n, p in peft.named_parameters() if p.grad is not None}
    assert len(theirs) == len(model.adapters) == 2 * 7 * (3 - first_layer)
    for key, parameter in zip(model.peft_state(), model.adapters.values(), strict=True):
        difference = (parameter.grad - theirs[key]).norm() / theirs[key].norm()
        assert difference < 0.1, key  # bf16 against float32; a wrong formula is off by 1


def test_a_shared_prefix_changes_neither_loss_nor_gradients(folder):
    shape, (ids, targets) = LoraShape(rank=4), example()
    ids[:, :3] = ids[0, :3]
    results = []
    for prefix_len in (0, 3):
        model = ours(folder, shape)
        loss = model(Batch(ids[0, :prefix_len], ids[:, prefix_len:], targets[:, prefix_len:]))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        results.append((loss.item(), gradient))
    (whole, whole_gradient), (shared, shared_gradient) = results
    assert shared == pytest.approx(whole, rel=5e-3)
    assert (shared_gradient - whole_gradient).norm() / whole_gradient.norm() < 0.03


def test_adapters_survive_the_way_through_peft_names(folder):
    shape = LoraShape(rank=2, first_layer=1)
    model, other = ours(folder, shape), load_lora_llama(folder, shape, kernels(compiled=False))
    other.load_peft_state(model.peft_state())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(KeyError):
        other.load_peft_state({})


def test_a_token_that_counts_three_times_adds_three_times_its_loss_and_its_gradient(folder):
    shape, (ids, targets) = LoraShape(rank=4), example()
    empty, thrice = torch.empty(0, dtype=torch.long), torch.ones(targets.shape)
    thrice[:, 6] = 3
    results = []
    for weights in (None, (thrice - 1) / 2, thrice):
        model = ours(folder, shape)
        loss = model(Batch(empty, ids, targets, weights))
        loss.backward()
        results.append(torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters())]))
    even, token, weighted = results
    assert (weighted - (even + 2 * token)).norm() / weighted.norm() < 0.08  # bf16; a wrong formula is off by 0.5
    assert float(weighted[0]) == pytest.approx(float(even[0] + 2 * token[0]), rel=1e-3)
