import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from nightsmith.model.files import weights_digest
from nightsmith.model.load import load
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import Small4Config, Small4ForCausalLM, build, make_config
from nightsmith.record.errors import Damaged, NightsmithError

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


def test_a_missing_foreign_or_damaged_checkpoint_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(NightsmithError, match=r"no config\.json"):
        load(tmp_path)
    build(NANO, seed=0).save_pretrained(tmp_path)
    digest = weights_digest(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert weights_digest(tmp_path) != digest
    with pytest.raises(Damaged, match="cannot be loaded"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(NightsmithError, match="'t5', which cannot be loaded as a causal language model"):
        load(tmp_path)
