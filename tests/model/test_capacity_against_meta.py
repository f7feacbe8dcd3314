"""Closed-form parameters against transformers' own models on the meta device, under a fake process group."""

import math

import pytest
import torch
import transformers
from meta_ranks import TINY, class_of, config_of, count_on_rank, shapes_on_rank
from torch.autograd.graph import saved_tensors_hooks
from transformers import Llama4Config, Llama4ForConditionalGeneration, Mistral3Config, Mistral3ForConditionalGeneration

from nightsmith.model.capacity.families import FAMILIES, shape_of
from nightsmith.model.capacity.memory import saved_values
from nightsmith.model.capacity.planning import parameters
from nightsmith.model.capacity.published import PUBLISHED
from nightsmith.model.capacity.published import config_of as config_of_preset
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan, local_shape, params_on, plans
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import Small4ForCausalLM, make_config

transformers.logging.set_verbosity_error()


def shape_of_config(config) -> ModelShape:
    shape = shape_of(config.to_dict(), "test")
    assert shape is not None
    return shape


@pytest.mark.parametrize("family", [*TINY, "small4"])
def test_every_family_names_and_shapes_each_parameter_as_its_model_does(family):
    assert {*TINY, "small4"} == set(FAMILIES)
    with torch.device("meta"):
        if family == "small4":
            config = make_config(PRESETS["micro"])
            model = Small4ForCausalLM(config)
        else:
            config = config_of(family, **TINY[family])
            model = class_of(family)(config)
    found = {name: weight.shape for name, weight in shape_of_config(config).named().items()}
    assert found == {name: tuple(weight.shape) for name, weight in model.named_parameters()}


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("gpus", [4, *(pytest.param(number, marks=pytest.mark.slow) for number in (3, 8))])
def test_each_rank_of_each_layout_holds_what_transformers_leaves_on_it(family, gpus):
    config = config_of(family, **TINY[family])
    shape = shape_of_config(config)
    for plan in plans(shape, gpus):
        for rank in {0, gpus - 1}:
            if plan.pp > 1:
                assert params_on(shape, plan, rank) == count_on_rank(family, config, plan, rank), (plan, rank)
            else:
                found = {name: local_shape(weight, plan, rank) for name, weight in shape.named().items()}
                assert found == shapes_on_rank(family, config, plan, rank), (plan, rank)


@pytest.mark.parametrize(
    ("plan", "rank"),
    [
        (ParallelPlan(fsdp=8, ep=8), 0),
        (ParallelPlan(fsdp=8, ep=8), 7),
        (ParallelPlan(fsdp=8, ep=4), 5),
        (ParallelPlan(fsdp=16, ep=8), 9),
        (ParallelPlan(fsdp=4, ep=4, tp=2), 3),
        (ParallelPlan(fsdp=7), 6),
        (ParallelPlan(tp=4), 1),
        (ParallelPlan(pp=4), 3),
    ],
)
def test_small4_is_laid_out_to_the_byte(plan, rank):
    config = config_of("mistral4")
    shape = shape_of(PUBLISHED["small4"].config, "small4")
    assert shape is not None
    assert 2 * params_on(shape, plan, rank) == 2 * count_on_rank("mistral4", config, plan, rank)


def test_vision_towers_are_counted_as_transformers_builds_them():
    for name, config_class, model_class in (
        ("small4", Mistral3Config, Mistral3ForConditionalGeneration),
        ("llama4-scout", Llama4Config, Llama4ForConditionalGeneration),
    ):
        entry = dict(PUBLISHED[name].config)
        text = entry["text_config"] | {"model_type": "mistral4" if name == "small4" else "llama4_text"}
        with torch.device("meta"):
            model = model_class(config_class(**{**entry, "text_config": text}))
        shape = shape_of(entry, name)
        assert shape is not None
        assert parameters(shape).total == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("preset", ["nano", "micro", "mini"])
def test_a_preset_has_the_parameters_that_training_builds(preset):
    with torch.device("meta"):
        model = Small4ForCausalLM(make_config(PRESETS[preset]))
    shape = shape_of(config_of_preset(PRESETS[preset]), preset)
    assert shape is not None
    assert shape.count() == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"num_key_value_heads": 4}),
        ("qwen3", {"num_key_value_heads": 4, "head_dim": 32}),
        ("qwen3_moe", {"num_key_value_heads": 4, "head_dim": 32, "moe_intermediate_size": 96, "num_experts": 16}),
        ("mistral4", {
            "num_key_value_heads": 8, "moe_intermediate_size": 128, "n_routed_experts": 16, "q_lora_rank": 64,
            "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 32,
        }),
    ],
)  # fmt: skip
def test_the_activations_of_a_layer_are_about_what_autograd_keeps(family, settings):
    """bf16, fused attention: the estimate lies within a sixth of what autograd keeps for the backward pass."""
    wide = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 131, "num_attention_heads": 8}
    kept: list[float] = []
    for num_layers in (1, 2):
        config = config_of(family, **wide, **settings, num_hidden_layers=num_layers, num_experts_per_tok=4)
        kept.append(bytes_kept(class_of(family)(config).bfloat16(), tokens=256))
    shape = shape_of_config(config)
    per_token = (kept[1] - kept[0]) / 256 / 2
    assert saved_values(shape, shape.kinds[0]) == pytest.approx(per_token, rel=1 / 6)


def bytes_kept(model, tokens: int) -> float:
    """Bytes that autograd keeps for the backward pass of one sequence; weights left out, each storage once."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    held, sizes = [], {}

    def keep(tensor):
        held.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = model.model(input_ids=torch.randint(0, 131, (1, tokens)), use_cache=False).last_hidden_state
        return math.fsum(sizes.values())
