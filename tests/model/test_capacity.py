"""What a run takes, by arithmetic alone: no torch here."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nightsmith.model.capacity.devices import GPUS
from nightsmith.model.capacity.families import shape_of
from nightsmith.model.capacity.fields import BadConfig
from nightsmith.model.capacity.memory import memory_of, trained_params
from nightsmith.model.capacity.planning import parameters, plan_capacity
from nightsmith.model.capacity.published import PUBLISHED, UnknownModel, value
from nightsmith.model.capacity.ranking import BadLayout, ranked
from nightsmith.model.capacity.report import CapacityReport
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan, params_on, plans
from nightsmith.model.capacity.subject import Subject, subject
from nightsmith.model.capacity.units import GIB
from nightsmith.model.capacity.workload import Workload
from nightsmith.model.size import model_size
from nightsmith.record.errors import NightsmithError


def shape(name: str) -> ModelShape:
    found = shape_of(PUBLISHED[name].config, name)
    assert found is not None
    return found


def report(name: str = "small4", gpus: int = 8, gpu: str = "H100", **work) -> CapacityReport:
    model = subject(name, cwd=Path("/"))
    return plan_capacity(model, Workload.model_validate(work), gpus=gpus, device=GPUS[gpu])


def test_small4_has_the_parameters_of_its_card():
    counts = parameters(shape("small4"))
    assert counts.total == pytest.approx(119.40e9, abs=0.05e9)
    assert counts.text == pytest.approx(118.97e9, abs=0.01e9)
    assert counts.vision == pytest.approx(403e6 + 25e6, abs=1e6)
    assert counts.active == pytest.approx(6.63e9, abs=0.05e9)
    assert counts.active_without_lookup == pytest.approx(6.10e9, abs=0.01e9)
    assert counts.active_without_embeddings == pytest.approx(5.56e9, abs=0.01e9)


@pytest.mark.parametrize(
    ("name", "total_within", "active_within"),
    [
        ("gpt-oss-20b", 0.001, 0.001),
        ("gpt-oss-120b", 0.001, 0.001),
        ("llama4-scout", 0.01, 0.011),
        ("qwen3-30b-a3b", 0.01, 0.017),
        ("deepseek-v4-flash", 0.01, 0.021),
        ("deepseek-v4-pro", 0.017, 0.01),
    ],
)
def test_published_figures_are_met_in_the_publishers_own_counting(name, total_within, active_within):
    """Beyond 1 % only where the publisher prints two digits; the count rounds (Qwen's: is cut off) to them."""
    found = report(name).published
    assert found is not None
    assert abs(found.total_difference) <= total_within
    assert abs(found.active_difference) <= active_within
    assert found.total_rounds_to
    assert found.active_rounds_to or (name == "qwen3-30b-a3b" and int(found.active_difference * 33 + 33) == 33)
    assert found.sources


@pytest.mark.parametrize(
    ("gpus", "weights", "adamw", "adamw8bit"),
    [(4, 55.4, 443, 166), (8, 27.7, 222, 83), (16, 13.9, 111, 42), (64, 3.5, 28, 10)],
)
def test_states_of_small4_take_what_sixteen_or_six_bytes_a_parameter_take(gpus, weights, adamw, adamw8bit):
    plan = max(plans(shape("small4"), gpus), key=lambda each: (each.ep, each.fsdp))
    for optimizer, wanted in (("adamw", adamw), ("adamw8bit", adamw8bit)):
        found = memory_of(shape("small4"), plan, Workload.model_validate({"optimizer": optimizer}))
        assert found.weights / GIB == pytest.approx(weights, abs=0.1)
        assert (found.weights + found.gradients + found.optimizer) / GIB == pytest.approx(wanted, abs=0.6)


@pytest.mark.parametrize(
    ("gpus", "gpu", "work", "fits"),
    [
        (4, "H100", {}, False),
        (4, "H100", {"method": "lora", "seq_len": 8192}, True),
        (1, "H100", {"method": "qlora"}, True),
        (8, "H100", {"optimizer": "adamw8bit"}, False),
        (8, "H200", {"optimizer": "adamw8bit"}, True),
        (16, "H100", {"optimizer": "adamw8bit"}, True),
        (16, "B200", {}, True),
        (32, "H100", {}, True),
    ],
)
def test_small4_fits_where_others_have_trained_it(gpus, gpu, work, fits):
    assert report(gpus=gpus, gpu=gpu, **work).verdict.fits is fits


def test_what_does_not_fit_comes_with_changes_that_do_and_their_commands():
    found = report().verdict
    assert not found.fits
    assert {(each.gpus, each.gpu, each.workload.method, each.workload.optimizer) for each in found.alternatives} >= {
        (8, "H200", "full", "adamw8bit"),
        (32, "H100", "full", "adamw"),
        (8, "H100", "lora", "adamw"),
        (8, "H100", "qlora", "adamw"),
    }
    for each in found.alternatives:
        again = plan_capacity(
            subject("small4", cwd=Path("/")), each.workload, gpus=each.gpus, device=GPUS[each.gpu]
        ).verdict
        assert again.fits
        assert again.needed_bytes == each.needed_bytes
    assert "nightsmith model plan small4 --gpus 8 --gpu H200 --optimizer adamw8bit" in {
        each.command for each in found.alternatives
    }


def test_a_sequence_that_is_too_long_is_answered_with_a_shorter_one():
    found = report("qwen3-30b-a3b", 8, seq_len=262_144).verdict
    assert not found.fits
    assert any(each.workload.seq_len == 32_768 and each.gpus == 8 for each in found.alternatives)


def test_a_sequence_that_no_full_training_fits_is_answered_with_adapters_on_a_shorter_one():
    found = report(seq_len=100_000_000)
    assert {(each.workload.method, each.gpus) for each in found.verdict.alternatives} >= {("lora", 8), ("qlora", 8)}
    assert any("longer than the 1,048,576" in note for note in found.notes)


def test_adapters_of_small4_have_the_size_of_their_rank():
    per_rank = {
        experts: trained_params(shape("small4"), Workload(method="lora", lora_rank=1, lora_experts=experts))
        for experts in (False, True)
    }
    assert per_rank[False] == pytest.approx(1.05e6 + 0.66e6, abs=0.01e6)
    assert per_rank[True] - per_rank[False] == pytest.approx(66.1e6, abs=0.1e6)


def test_the_cache_of_small4_is_its_latent():
    cache = report().kv_cache
    assert cache.bytes_per_token == 23_040
    assert report(seq_len=262_144).kv_cache.bytes_per_sequence == pytest.approx(6.04e9, rel=0.01)


def test_a_window_keeps_no_more_than_it_sees():
    short, long = (report("gpt-oss-20b", 8, seq_len=length).kv_cache for length in (128, 65_536))
    layer = 2 * 8 * 64 * 2
    assert short.bytes_per_sequence == 24 * layer * 128
    assert long.bytes_per_sequence == 12 * layer * 65_536 + 12 * layer * 128


@pytest.mark.parametrize(
    ("name", "gpus", "per_gpu"),
    [("qwen3-30b-a3b", 8, 12_040), ("gpt-oss-20b", 8, 13_058), ("gpt-oss-120b", 64, 7_626)],
)
def test_the_range_of_speeds_holds_the_published_run(name, gpus, per_gpu):
    speed = report(name, gpus).plans[0].speed
    assert speed.low <= per_gpu * gpus <= speed.high


def test_plans_are_ranked_those_that_fit_and_train_first():
    found = ranked(shape("small4"), 32, Workload(), GPUS["H100"], 8)
    works = [plan.fits and plan.trains for plan in found]
    assert works == sorted(works, reverse=True)
    speeds = [plan.speed.low for plan in found if plan.fits and plan.trains]
    assert speeds == sorted(speeds, reverse=True)
    assert not any(plan.trains for plan in found if plan.pp > 1)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(PUBLISHED)), gpus=st.integers(1, 48), data=st.data())
def test_ranks_together_hold_at_least_the_model_and_no_rank_more_than_it(name, gpus, data):
    model = shape(name)
    plan = data.draw(st.sampled_from(plans(model, gpus)))
    held = [params_on(model, plan, rank) for rank in range(plan.world)]
    assert sum(held) >= model.count()
    assert max(held) <= model.count()
    if plan.tp == plan.pp == 1:
        assert sum(held) == model.count()


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(PUBLISHED)), power=st.integers(0, 6), seq=st.sampled_from([256, 1024, 4096, 16_384]))
def test_more_gpus_never_need_more_of_each_and_longer_sequences_never_less(name, power, seq):
    model, work = shape(name), Workload(seq_len=seq)
    few, many = (memory_of(model, ParallelPlan(fsdp=2**p), work) for p in (power + 1, power + 2))
    states = [each.weights + each.gradients + each.optimizer for each in (few, many)]
    assert states[1] <= states[0]
    assert (
        memory_of(model, ParallelPlan(), Workload(seq_len=2 * seq)).total > memory_of(model, ParallelPlan(), work).total
    )


@pytest.mark.parametrize("gpus", [0, -1, 10**6])
def test_numbers_of_gpus_that_cannot_be_are_refused(gpus):
    with pytest.raises(BadLayout, match="from 1 to"):
        report(gpus=gpus)


def test_gpus_that_fill_no_whole_machine_are_refused_with_those_that_do():
    with pytest.raises(BadLayout, match="use 8 or 16"):
        report(gpus=12)


def test_gpus_that_divide_nothing_are_told_which_would():
    found = report(gpus=7, method="lora")
    assert {(plan.fsdp, plan.ep, plan.tp) for plan in found.plans if plan.pp == 1} == {(7, 1, 1)}
    assert any("7 GPUs share no divisor with the 128 experts" in note and "4 or 8" in note for note in found.notes)


def test_an_empty_name_is_no_model(tmp_path):
    with pytest.raises(UnknownModel):
        subject(" ", cwd=tmp_path)


@pytest.mark.parametrize(
    ("typed", "meant"), [("smal4", "small4"), ("gpt-oss-12b", "gpt-oss-120b"), ("qwen3-30b", "qwen3-30b-a3b")]
)
def test_an_unknown_model_is_answered_with_near_names(typed, meant):
    with pytest.raises(UnknownModel, match=f"Did you mean .*{meant}"):
        subject(typed, cwd=Path("/"))


@pytest.mark.parametrize(
    "typed", ["Small4", "Mistral-Small-4", "mistralai/Mistral-Small-4-119B-2603", "GPT-OSS 120B", "Llama 4 Scout"]
)
def test_spellings_of_a_name_are_forgiven(typed):
    assert subject(typed, cwd=Path("/")).published is not None


def test_deepseek_v4_says_which_model_it_was_taken_for():
    assert any("deepseek-v4-pro" in note for note in report("DeepSeek-V4").notes)


def folder(path: Path, config: object, tensors: dict[str, tuple[int, ...]] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if tensors is not None:
        save_file({name: np.zeros(dims, np.float32) for name, dims in tensors.items()}, path / "model.safetensors")
    return path


def test_a_folder_is_sized_by_its_config_even_without_weights(tmp_path):
    config = dict(PUBLISHED["qwen3-30b-a3b"].config)
    found = subject(str(folder(tmp_path / "m", config)), cwd=tmp_path)
    assert found.shape.count() == pytest.approx(value("30.5B"), rel=0.01)
    assert any("no weights" in note for note in found.notes)


def test_files_that_do_not_hold_what_the_config_says_are_noted(tmp_path):
    where = folder(tmp_path / "m", dict(PUBLISHED["nano"].config), {"model.norm.weight": (64,)})
    assert any("hold 64 values" in note for note in subject(str(where), cwd=tmp_path).notes)


def test_planning_counts_only_the_experts_that_a_token_passes(tmp_path):
    config, weights = dict(PUBLISHED["nano"].config), shape("nano").named()
    tensors = {name: weight.shape for name, weight in weights.items()}
    assert model_size(folder(tmp_path / "m", config, tensors)).num_params == shape("nano").count_active()
    more = tensors | {"model.extra.weight": (7,)}
    assert model_size(folder(tmp_path / "m", config, more)).num_params == shape("nano").count() + 7


def test_another_family_is_counted_by_its_headers_and_says_what_is_missing(tmp_path):
    tensors = {"wte.weight": (100, 8), "h.0.attn.weight": (8, 24), "h.1.attn.weight": (8, 24), "ln_f.weight": (8,)}
    where = folder(tmp_path / "m", {"model_type": "gpt9", "vocab_size": 100, "n_embd": 8}, tensors)
    found = report_of(subject(str(where), cwd=tmp_path))
    assert found.params.total == 100 * 8 + 2 * 8 * 24 + 8
    assert {(plan.ep, plan.tp, plan.pp) for plan in found.plans} == {(1, 1, 1)}
    assert any("'gpt9' is not known in closed form" in note for note in found.notes)


def test_experts_of_another_family_count_by_what_its_config_says_of_routing(tmp_path):
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (100, 8)}
    tensors |= {f"model.layers.0.mlp.experts.{i}.up.weight": (16, 8) for i in range(4)}
    config = {"model_type": "newmoe", "vocab_size": 100, "hidden_size": 8, "num_experts": 4, "num_experts_per_tok": 1}
    counts = report_of(subject(str(folder(tmp_path / "m", config, tensors)), cwd=tmp_path)).params
    assert (counts.total, counts.active) == (800 + 4 * 128, 800 + 128)


def report_of(model: Subject) -> CapacityReport:
    return plan_capacity(model, Workload(), gpus=2, device=GPUS["H100"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[1]", "holds no JSON object"),
        ({"hidden_size": 8}, "names no model_type"),
        ({"model_type": "llama", "hidden_size": "8"}, "'hidden_size' is '8'"),
        ({"model_type": "llama", "hidden_size": -8}, "'hidden_size' is -8"),
        (dict(PUBLISHED["nano"].config) | {"num_experts_per_tok": None}, "'num_experts_per_tok' is None"),
        (dict(PUBLISHED["nano"].config) | {"vocab_size": True}, "'vocab_size' is True"),
        (dict(PUBLISHED["gpt-oss-20b"].config) | {"layer_types": ["full_attention"]}, "1 entries for 24 layers"),
    ],
)
def test_a_damaged_config_is_refused_by_its_field(tmp_path, content, said):
    with pytest.raises(NightsmithError, match=said.replace("[", r"\[")):
        subject(str(folder(tmp_path / "m", content)), cwd=tmp_path)


def test_a_damaged_safetensors_header_is_refused_by_name(tmp_path):
    where = folder(tmp_path / "m", {"model_type": "gpt9"})
    (where / "model.safetensors").write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00nope!")
    with pytest.raises(NightsmithError, match=r"model\.safetensors is no safetensors file"):
        subject(str(where), cwd=tmp_path)


def test_a_bad_config_names_the_mend():
    with pytest.raises(BadConfig, match=r"Restore the model's config\.json"):
        shape_of({"model_type": "mixtral"}, "somewhere/config.json")
