"""Adapters on routed experts against PEFT's own forward pass, which is the oracle."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import parallel_lora
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import ParamWrapper
from torch import Tensor
from transformers import GptOssConfig, GptOssForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from nightsmith.model.lora import add_adapters, attach, describe, expert_weights
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build
from nightsmith.model.split_lora import SplitLora

torch.set_num_threads(1)
TOKENS = torch.randint(0, 200, (2, 40), generator=torch.Generator().manual_seed(0))
SIZES = {
    "vocab_size": 200, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 8, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip


def small4() -> Any:
    return build(PRESETS["nano"], seed=0)


def qwen3_moe() -> Any:
    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, moe_intermediate_size=12, intermediate_size=24))


def gpt_oss() -> Any:
    torch.manual_seed(0)
    return GptOssForCausalLM(GptOssConfig(**SIZES, intermediate_size=12, layer_types=["full_attention"] * 2))


def ours(model: Any, seed: int = 1) -> Any:
    """A copy with adapters of which none is zero."""
    adapted = add_adapters(copy.deepcopy(model), base=Path("base"), rank=4, alpha=8.0, seed=seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    return adapted


def pefts(model: Any, adapted: Any) -> Any:
    """The same adapters on a copy that PEFT computes."""
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", target_parameters=expert_weights(model), task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(copy.deepcopy(model), config)
    theirs.load_state_dict(adapted.state_dict())
    return theirs


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=TOKENS).logits


def gradients(model: Any) -> dict[str, Tensor]:
    model.train().zero_grad()
    model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


def stacks(model: Any) -> list[Tensor]:
    return [weight for name, weight in model.named_parameters() if weight.ndim == 3 and "experts" in name]


def is_split(model: Any) -> bool:
    return any(isinstance(module, SplitLora) for module in model.modules())


@pytest.mark.parametrize("family", [small4, qwen3_moe])
def test_logits_and_gradients_are_those_of_peft(family: Any) -> None:
    base = family()
    adapted = ours(base)
    theirs = pefts(base, adapted)
    assert is_split(adapted)
    assert not is_split(theirs)
    torch.testing.assert_close(logits(adapted), logits(theirs), atol=1e-6, rtol=1e-5)
    reference = gradients(theirs)
    for name, gradient in gradients(adapted).items():
        assert (gradient - reference[name]).norm() <= 1e-5 * reference[name].norm(), name


def test_experts_that_train_beside_their_adapters_are_computed_by_grouped_products_alike() -> None:
    adapted = ours(small4())
    before, reference = logits(adapted), gradients(adapted)
    for stack in stacks(adapted):
        stack.requires_grad_()
    torch.testing.assert_close(logits(adapted), before, atol=1e-6, rtol=1e-5)
    found = gradients(adapted)
    assert len(found) == len(reference) + len(stacks(adapted))
    for name, gradient in reference.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_attention_shared_and_routed_experts_are_adapted_and_nothing_else_trains() -> None:
    adapted = ours(small4())
    kinds = set(describe(adapted).modules)
    assert {"self_attn.q_a_proj", "self_attn.o_proj", "mlp.shared_experts.up_proj", "mlp.experts"} <= kinds
    assert not any("gate.weight" in name for name in gradients(adapted))


def test_adapters_are_saved_loaded_and_merged_in_pefts_format(tmp_path: Path) -> None:
    base = small4()
    adapted = ours(base)
    expected = logits(adapted)
    adapted.save_pretrained(tmp_path)
    by_us = attach(copy.deepcopy(base), tmp_path, trainable=False)
    by_peft = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path))
    assert is_split(by_us)
    assert not is_split(by_peft)
    assert torch.equal(logits(by_us), expected)
    torch.testing.assert_close(logits(by_peft), expected, atol=1e-6, rtol=1e-5)
    merged = by_us.merge_and_unload()
    assert not any(isinstance(module, ParamWrapper) for module in merged.modules())
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-4)
    by_peft.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(attach(copy.deepcopy(base), tmp_path / "again", trainable=True)), expected)


def test_switched_off_adapters_leave_the_base_model() -> None:
    base = small4()
    adapted = ours(base)
    with adapted.disable_adapter():
        torch.testing.assert_close(logits(adapted), logits(base), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(logits(adapted), logits(base), atol=1e-3)


def test_an_adapter_on_one_stack_of_experts_alone_keeps_pefts_forward(tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=[], target_parameters=["mlp.experts.down_proj"], init_lora_weights=False)
    theirs = get_peft_model(small4(), config)
    theirs.save_pretrained(tmp_path)
    loaded = attach(small4(), tmp_path, trainable=False)
    assert not is_split(loaded)
    assert torch.equal(logits(loaded), logits(theirs))


def test_experts_that_cannot_be_split_keep_pefts_forward() -> None:
    adapted = ours(gpt_oss())
    assert not is_split(adapted)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(adapted).values())


def test_no_copy_of_the_experts_is_made() -> None:
    """What autograd keeps for the backward pass holds no tensor as large as a stack of experts but the stacks."""
    adapted = ours(small4()).train()
    own, kept = {stack.data_ptr(): stack.shape for stack in stacks(adapted)}, []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved) or saved, lambda saved: saved):
        adapted(input_ids=TOKENS, labels=TOKENS, use_cache=False)
    assert len(own) == 2 * PRESETS["nano"].num_layers
    assert [saved.shape for saved in kept if saved.shape in own.values() and saved.data_ptr() not in own] == []


@pytest.mark.slow
def test_two_ranks_with_fsdp_and_expert_parallelism_take_the_steps_of_one_process(tmp_path: Path) -> None:
    small4().save_pretrained(tmp_path / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    script = [parallel_lora.__file__, str(tmp_path / "model"), str(tmp_path / "results.json")]
    done = subprocess.run([*launch, *script], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "results.json").read_text())
    reference, state = parallel_lora.steps(small4())
    assert found["loss"] == pytest.approx(reference["loss"], rel=1e-5)
    assert found["norm"] == pytest.approx(reference["norm"], rel=1e-5)
    assert found["state"].keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(torch.tensor(found["state"][name]), value, atol=2e-5, rtol=1e-3)
