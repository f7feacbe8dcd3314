import json
import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.models.mistral4.configuration_mistral4 import Mistral4Config
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from nightsmith.model.load import load
from nightsmith.model.presets import PRESETS
from nightsmith.model.router import routers
from nightsmith.model.small4 import Small4Config, Small4ForCausalLM, build, make_config, save_as_mistral4
from nightsmith.record.errors import NightsmithError

torch.set_num_threads(1)
NANO = PRESETS["nano"]


def parameters(name: str) -> tuple[int, int]:
    """Total and active parameters of a preset, counted on the meta device."""
    with torch.device("meta"):
        model = Small4ForCausalLM(make_config(PRESETS[name]))
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = sum(p.numel() for key, p in model.named_parameters() if ".experts." in key)
    share = PRESETS[name].top_k / PRESETS[name].num_experts
    return total, round(total - experts + experts * share)


def tokens(batch: int = 2, length: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("nano", 0.17e6, 0.10e6), ("micro", 2.80e6, 0.74e6), ("mini", 25.8e6, 5.15e6), ("small4", 118.97e9, 6.63e9)],
)
def test_each_preset_has_the_parameters_of_its_table(name: str, total: float, active: float) -> None:
    counted = parameters(name)
    assert counted[0] == pytest.approx(total, rel=0.02)
    assert counted[1] == pytest.approx(active, rel=0.02)


def test_small4_has_exactly_the_text_parameters_of_mistral4() -> None:
    with torch.device("meta"):
        reference = Mistral4ForCausalLM(Mistral4ForCausalLM.config_class())
    assert parameters("small4")[0] == sum(parameter.numel() for parameter in reference.parameters())


def test_the_softmax_scale_is_head_dim_to_the_minus_half_for_every_rope_setting() -> None:
    model = build(NANO, seed=0)
    assert model.model.layers[0].self_attn.scaling == pytest.approx(16**-0.5)
    stretched = make_config(NANO)
    stretched.rope_parameters |= {"factor": 128.0, "mscale_all_dim": 1.0}
    assert Mistral4ForCausalLM(stretched).model.layers[0].self_attn.scaling == pytest.approx(2.206 * 16**-0.5, rel=1e-3)
    assert Small4ForCausalLM(stretched).model.layers[0].self_attn.scaling == pytest.approx(16**-0.5)


def scale_of(config: Mistral4Config, model_class: type = Mistral4ForCausalLM) -> float:
    """What attention scores are multiplied with, as a model of this config really does."""
    config.num_hidden_layers = 1
    with torch.device("meta"):
        return model_class(config).model.layers[0].self_attn.scaling


def test_each_source_of_the_released_config_gives_the_softmax_scale_that_is_documented() -> None:
    # transformers 5.23: 128 ** -0.5 times YaRN's mscale (0.1 ln 128 + 1) squared.
    assert scale_of(Mistral4Config()) == pytest.approx(0.19497, abs=5e-6)
    # vLLM 0.33 and NeMo, from Mistral's own `apply_scale: false`: 128 ** -0.5 alone.
    vllm_and_nemo = 128**-0.5
    assert vllm_and_nemo == pytest.approx(0.08839, abs=5e-6)
    with pytest.warns(UserWarning, match=r"scaled by 0\.08839 .* transformers 5\.23 would scale by 0\.19497"):
        ours = Small4Config()
    assert scale_of(ours, Small4ForCausalLM) == vllm_and_nemo
    # The two keys that make unmodified transformers agree: exported configs carry them.
    assert scale_of(ours.to_released_config()) == vllm_and_nemo


def test_a_config_warns_only_where_the_sources_disagree_and_no_scale_is_named(recwarn) -> None:
    released = Mistral4Config().to_dict()
    Small4Config.from_mistral4(released, attn_softmax_scale=0.195)
    make_config(PRESETS["small4"])
    assert not recwarn.list
    with pytest.warns(UserWarning, match="attn_softmax_scale"):
        Small4Config.from_mistral4(released)


def test_released_weights_load_as_ours_with_a_warning_and_come_back_from_ours_to_plain_transformers(tmp_path) -> None:
    magnified = make_config(NANO)
    magnified.rope_parameters |= {"factor": 128.0, "mscale_all_dim": 1.0}
    fields = Mistral4Config().to_dict().keys() - {"model_type"}
    torch.manual_seed(0)
    plain = Mistral4ForCausalLM(Mistral4Config(**{k: v for k, v in magnified.to_dict().items() if k in fields})).eval()
    plain.save_pretrained(tmp_path / "released")
    with pytest.warns(UserWarning, match="attn_softmax_scale"):
        ours = load(tmp_path / "released")
    assert type(ours) is Small4ForCausalLM
    save_as_mistral4(ours, tmp_path / "exported")
    back = Mistral4ForCausalLM.from_pretrained(tmp_path / "exported").eval()
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["model_type"] == "mistral4"
    with torch.inference_mode():
        exported, served, stock = back(tokens()).logits, ours(tokens()).logits, plain(tokens()).logits
    torch.testing.assert_close(exported, served, atol=1e-6, rtol=0)
    assert not torch.allclose(served, stock, atol=1e-4)


def test_our_checkpoints_are_read_by_unmodified_transformers(tmp_path) -> None:
    model = build(NANO, seed=0, router_aux_loss_coef=0.01).eval()
    model.save_pretrained(tmp_path)
    plain = Mistral4ForCausalLM.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        torch.testing.assert_close(plain(tokens()).logits, model(tokens()).logits, atol=1e-6, rtol=0)


def test_what_the_released_architecture_cannot_express_is_not_exported(tmp_path) -> None:
    balanced = build(NANO, seed=0, balance_mode="bias")
    save_as_mistral4(balanced, tmp_path / "unbiased")
    assert Mistral4ForCausalLM.from_pretrained(tmp_path / "unbiased").config.model_type == "mistral4"
    balanced.model.layers[1].mlp.gate.bias_E[3] = 1e-3
    with pytest.raises(NightsmithError, match=r"1 of the routers, the first in layer 1, .* selection bias"):
        save_as_mistral4(balanced, tmp_path / "biased")
    odd = make_config(NANO)
    odd.attn_softmax_scale = 0.3
    with pytest.raises(NightsmithError, match=r"attn_softmax_scale is 0\.3; plain Mistral4 can say 0\.25"):
        odd.to_released_config()
    assert not (tmp_path / "biased").exists()


def test_routed_groups_are_refused() -> None:
    with pytest.raises(NightsmithError, match="n_group is 8"):
        Small4Config(attn_softmax_scale=0.1, n_group=8)


@pytest.mark.parametrize(("mode", "coefficient"), [("aux", 0.0), ("none", 0.5)])
def test_a_coefficient_that_trl_wrote_into_a_config_leaves_the_model_loadable_and_its_mode_in_force(
    mode: str, coefficient: float, tmp_path
) -> None:
    model = build(NANO, seed=0, balance_mode=mode, router_aux_loss_coef=coefficient)
    model.save_pretrained(tmp_path)
    assert load(tmp_path).config.balance_mode == mode
    assert not any(router.aux_loss_coef for router in routers(model))


def test_the_balance_mode_follows_from_the_coefficient_where_it_is_not_named() -> None:
    assert make_config(NANO).balance_mode == "none"
    assert make_config(NANO, router_aux_loss_coef=0.01).balance_mode == "aux"
    assert make_config(NANO, balance_mode="bias", router_aux_loss_coef=0.01).balance_mode == "bias"


def test_logits_equal_those_of_plain_mistral4_with_the_same_weights() -> None:
    model = build(NANO, seed=0).eval()
    plain = Mistral4ForCausalLM(make_config(NANO)).eval()
    plain.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens()).logits, plain(tokens()).logits, atol=1e-6, rtol=0)


def test_equal_seeds_build_bit_equal_models_and_other_seeds_do_not() -> None:
    first, second, third = (build(NANO, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], third["lm_head.weight"])


def test_an_untrained_model_knows_nothing() -> None:
    model = build(NANO, seed=0).eval()
    with torch.inference_mode():
        logits = model(tokens(8, 64)).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens(8, 64)[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(259), abs=0.05)


def test_no_position_sees_what_follows_it() -> None:
    model = build(NANO, seed=0).eval()
    changed = tokens()
    changed[:, 20:] = 7
    with torch.inference_mode():
        before, after = model(tokens()).logits, model(changed).logits
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_a_saved_model_comes_back_bit_equal_by_our_loader_and_by_the_auto_classes(tmp_path) -> None:
    model = build(NANO, seed=3, router_aux_loss_coef=0.01)
    model.save_pretrained(tmp_path)
    ours, auto = load(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(auto) is Small4ForCausalLM
    assert auto.config.router_aux_loss_coef == 0.01
    assert not ours.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name])
        assert torch.equal(value, auto.state_dict()[name])
    with torch.inference_mode():
        assert torch.equal(ours(tokens()).logits, auto.eval()(tokens()).logits)


def test_the_config_survives_its_json(tmp_path) -> None:
    config = make_config(NANO, router_aux_loss_coef=0.02)
    config.save_pretrained(tmp_path)
    assert Small4Config.from_pretrained(tmp_path).to_dict() == config.to_dict()
