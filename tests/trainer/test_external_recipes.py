"""Recipes of external trainers: what a spec becomes, what is refused by name, what their logs say."""

import json
from pathlib import Path
from typing import Any

import automodel_double
import axolotl_double
import pytest
import yaml
from trainer_doubles import Refused

from nightsmith.model.capacity.devices import GPUS
from nightsmith.model.capacity.families import shape_of
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.capacity.subject import Subject, subject
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.external import automodel, axolotl
from nightsmith.trainer.external.follow import FIRST_STEP_S, SILENCE_S, Follower
from nightsmith.trainer.external.gpus import device_of
from nightsmith.trainer.external.layout import DoesNotFit, Site
from nightsmith.trainer.external.process import last_error
from nightsmith.trainer.external.recipe import CannotExpress, Recipe
from nightsmith.trainer.external.render import render
from nightsmith.trainer.external.staging import stage
from nightsmith.trainer.external.tool import StepLine
from nightsmith.trainer.journal import Journal
from nightsmith.trainer.spec import DpoSpec, RewardSpec, SftSpec

EXAMPLES = Path(__file__).parents[2] / "examples" / "small4"
RUN = Path("RUN")
LLAMA = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192,
}  # fmt: skip
"""A dense model of a billion parameters."""


def spec(kind: type[SftSpec | DpoSpec] = SftSpec, **settings: Any) -> Any:
    fields: dict[str, Any] = {
        "model": {"path": "/models/small4", "weights_digest": "0"}, "data": "/data/rows.parquet", "data_digest": "0",
        "num_steps": 100, "batch_size": 64, "max_len": 2048,
    }  # fmt: skip
    return kind.model_validate(fields | settings)


def h100(gpus: int) -> Site:
    return Site(gpus, GPUS["H100"], min(8, gpus) or 1)


def known(name: str) -> Subject:
    """A model of the catalogue, or a dense one."""
    if name != "llama":
        return subject(name, cwd=Path.cwd())
    shape = shape_of(LLAMA, name)
    assert shape is not None
    return Subject(name, name, shape)


def recipe(backend: str, gpus: int, model: str = "small4", **settings: Any) -> Recipe:
    return render(spec(backend=backend, **settings), known(model), h100(gpus), RUN)


def validated(made: Recipe, gpus: int) -> dict[str, Any]:
    """As the trainers read it: from YAML, by the published schema."""
    config = yaml.safe_load(made.text())
    assert config == made.config, "a value changed its type on the way through YAML"
    if made.argv[0] == "axolotl":
        return axolotl_double.validated(config)
    return automodel_double.validated(config, gpus)


ASKED = [
    ("axolotl", 8, "small4", {}),
    ("axolotl", 1, "small4", {"adaptation": "qlora", "lora_experts": False}),
    ("axolotl", 2, "small4", {"adaptation": "qlora"}),
    ("axolotl", 64, "small4", {"adaptation": "full", "learning_rate": 1e-5}),
    ("axolotl", 2, "qwen3-30b-a3b", {"schedule": "linear"}),
    ("axolotl", 1, "llama", {"adaptation": "full", "schedule": "constant"}),
    ("axolotl", 8, "small4", {"kind": DpoSpec, "lora_experts": False, "beta": 0.05}),
    ("axolotl", 1, "llama", {"kind": DpoSpec, "adaptation": "qlora", "loss_type": "robust", "label_smoothing": 0.1}),
    ("automodel", 8, "small4", {}),
    ("automodel", 32, "small4", {"adaptation": "full", "learning_rate": 1e-5}),
    ("automodel", 4, "small4", {"lora_experts": False, "schedule": "linear"}),
    ("automodel", 8, "gpt-oss-120b", {"lora_experts": False, "seed": 7}),
    ("automodel", 1, "llama", {"adaptation": "qlora", "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("backend", "gpus", "model", "settings"), ASKED)
def test_every_recipe_is_valid_by_the_published_schema_and_always_the_same_text(
    backend: str, gpus: int, model: str, settings: dict[str, Any]
):
    made = recipe(backend, gpus, model, **settings)
    validated(made, gpus)
    assert recipe(backend, gpus, model, **settings).text() == made.text()


def test_a_key_that_the_schema_does_not_have_is_refused_by_the_doubles():
    config = recipe("axolotl", 8).config
    with pytest.raises(Refused, match="learning_rat: unknown key"):
        axolotl_double.validated(config | {"learning_rat": 0.1})
    with pytest.raises(Refused, match="unknown key"):
        automodel_double.validated({**recipe("automodel", 8).config, "lr": 0.1}, 8)


def test_settings_of_a_spec_arrive_under_the_names_that_each_trainer_has():
    settings: dict[str, Any] = {
        "num_steps": 40, "batch_size": 64, "micro_batch": 2, "learning_rate": 3e-5, "warmup_share": 0.1, "seed": 5,
        "weight_decay": 0.02, "grad_clip": 0.5, "lora_rank": 8, "lora_alpha": 24, "max_len": 1024,
    }  # fmt: skip
    one = recipe("axolotl", 8, **settings).config
    assert (one["max_steps"], one["micro_batch_size"], one["gradient_accumulation_steps"]) == (40, 2, 4)
    assert (one["learning_rate"], one["warmup_steps"], one["weight_decay"], one["max_grad_norm"]) == (
        3e-5,
        4,
        0.02,
        0.5,
    )
    assert (one["lora_r"], one["lora_alpha"], one["sequence_len"], one["seed"]) == (8, 24, 1024, 5)
    two = recipe("automodel", 8, **settings).config
    steps = two["step_scheduler"]
    assert (steps["max_steps"], steps["global_batch_size"], steps["local_batch_size"]) == (40, 64, 2)
    assert (two["optimizer"]["lr"], two["lr_scheduler"]["lr_warmup_steps"], two["seed"]) == (3e-5, 4, 5)
    assert (two["peft"]["dim"], two["peft"]["alpha"], two["clip_grad_norm"]["max_norm"]) == (8, 24, 0.5)


def test_a_pair_counts_as_two_sequences_where_memory_is_reckoned():
    rows = recipe("automodel", 8, "llama", batch_size=512).config["step_scheduler"]["local_batch_size"]
    pairs = recipe("axolotl", 8, "llama", kind=DpoSpec, batch_size=512).config["micro_batch_size"]
    assert pairs == rows // 2


def test_full_training_spares_routers_and_the_image_part_unless_routers_are_asked_for():
    frozen = recipe("axolotl", 64, adaptation="full").config
    assert frozen["freeze_mm_modules"] is True
    assert frozen["unfrozen_parameters"] == ["^(?!.+mlp.gate.).+"]
    assert "unfrozen_parameters" not in recipe("axolotl", 64, adaptation="full", train_router=True).config
    globs = recipe("automodel", 32, adaptation="full").config["freeze_config"]["freeze_modules"]
    assert {"glob": "*.mlp.gate"} in globs
    free = recipe("automodel", 32, adaptation="full", train_router=True).config["freeze_config"]["freeze_modules"]
    assert {"glob": "*.mlp.gate"} not in free


def test_the_layout_is_the_best_that_fits_and_that_the_trainer_can_have():
    assert recipe("automodel", 4).config["distributed"]["ep_size"] == 4
    assert recipe("automodel", 2, "llama").config["distributed"]["ep_size"] == 1
    assert recipe("axolotl", 8).config["fsdp_version"] == 2
    assert recipe("axolotl", 8).argv[-2:] == ("--nproc-per-node", "8")
    many = recipe("automodel", 32, adaptation="full")
    assert many.argv[:5] == ("torchrun", "--nnodes", "4", "--nproc-per-node", "8")


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(DoesNotFit, match=r"8 H100 \(`nightsmith model plan small4 --gpus 8"):
        recipe("axolotl", 4)
    with pytest.raises(DoesNotFit, match=r"cannot be split evenly among 8 ranks.*Set it to 64 or 72"):
        recipe("axolotl", 8, batch_size=70)
    with pytest.raises(DoesNotFit, match="micro_batch 5 does not divide"):
        recipe("axolotl", 8, micro_batch=5)
    with pytest.raises(DoesNotFit, match="dp is for training from scratch"):
        recipe("axolotl", 8, parallel=ParallelPlan(dp=8))
    with pytest.raises(DoesNotFit, match="expert parallelism: backend 'automodel'"):
        recipe("axolotl", 8, parallel=ParallelPlan(fsdp=8, ep=8))
    with pytest.raises(DoesNotFit, match="4 GPUs, and the run gets 8"):
        recipe("automodel", 8, parallel=ParallelPlan(fsdp=4, ep=4))
    with pytest.raises(DoesNotFit, match=r"fsdp=4 ep=4\. The run takes about"):
        recipe("automodel", 4, adaptation="full", parallel=ParallelPlan(fsdp=4, ep=4))


@pytest.mark.parametrize(
    ("backend", "settings", "says"),
    [
        ("automodel", {"adaptation": "qlora"}, "adaptation 'qlora'.*routed experts"),
        ("axolotl", {"lora_alpha": 0.5}, "lora_alpha 0.5: axolotl takes whole numbers"),
        ("automodel", {"lora_alpha": 0.5}, "lora_alpha 0.5: NeMo AutoModel takes whole numbers"),
        ("trl", {}, "backend 'trl' needs no recipe"),
        ("axolotl", {"kind": DpoSpec, "adaptation": "full"}, "for dpo axolotl keeps the reference"),
        ("automodel", {"kind": DpoSpec}, "kind 'dpo'"),
        ("axolotl", {"kind": RewardSpec}, "kind 'reward'"),
    ],
)
def test_what_a_trainer_has_no_word_for_is_refused_by_name(backend: str, settings: dict[str, Any], says: str):
    with pytest.raises(CannotExpress, match=says):
        recipe(backend, 8, **settings)


def test_automodel_without_gpus_is_refused_and_axolotl_computes_on_the_cpu():
    with pytest.raises(CannotExpress, match="trains on GPUs only"):
        recipe("automodel", 0)
    made = render(spec(backend="axolotl", micro_batch=8), known("nano"), Site(), RUN)
    assert made.config["gradient_accumulation_steps"] == 8
    assert made.argv[-2:] == ("--launcher", "python")


@pytest.mark.parametrize(
    ("config", "backend", "says"),
    [
        ({"model_type": "small4"}, "axolotl", "does not know model_type 'small4'"),
        ({"model_type": "mistral4"}, "axolotl", "no causal language model of type 'mistral4' alone"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "fp8"}}, "axolotl", r"quantised \(fp8\)"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "automodel", r"quantised \(gptq\)"),
    ],
)
def test_weights_that_a_trainer_cannot_start_from_are_refused(
    tmp_path: Path, config: dict[str, Any], backend: str, says: str
):
    (tmp_path / "config.json").write_text(json.dumps(config))
    asked = spec(backend=backend, model={"path": str(tmp_path), "weights_digest": "0"})
    with pytest.raises(CannotExpress, match=says):
        render(asked, known("qwen3-30b-a3b"), h100(8), RUN)


def test_a_spec_for_trl_asks_for_nothing_that_only_external_trainers_do():
    for settings in ({"adaptation": "qlora"}, {"micro_batch": 1}, {"lora_experts": False}, {"parallel": {"fsdp": 2}}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: only external trainers"):
            spec(**settings)


def test_released_small4_is_trained_from_a_config_without_the_magnitude_correction(tmp_path: Path):
    rope = {"rope_type": "yarn", "factor": 128.0, "mscale_all_dim": 1.0}
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    config = {"model_type": "mistral3", "text_config": {"model_type": "mistral4", "rope_parameters": rope}}
    (model / "config.json").write_text(json.dumps(config))

    staged = stage(model, tmp_path / "run")

    text = json.loads((staged / "config.json").read_text())["text_config"]
    assert text["rope_parameters"] == rope | {"mscale_all_dim": 0.0, "attention_factor": 1.0}
    assert (staged / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((model / "config.json").read_text()) == config, "the model itself stays as it is"


def test_a_model_without_that_correction_is_trained_from_its_own_folder(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert stage(tmp_path, tmp_path / "run") == tmp_path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "{'loss': '0.8123', 'grad_norm': '1.5', 'learning_rate': '2e-05', 'ppl': '2.25', 'epoch': '0.25'}",
            StepLine(0.8123, 1.5, 2e-5, 0.25),
        ),
        ("  3%|▎  | 1/30 [00:01<00:40]{'loss': 'nan', 'learning_rate': '0', 'epoch': '0'}", "nan"),
        ("{'train_runtime': '1.2', 'train_loss': '1.1', 'epoch': '1'}", None),
        ("[2026-11-25 12:00:00,000] [INFO] [axolotl.train] 'loss' of {'what'}", None),
        ("{'loss': broken", None),
    ],
)
def test_axolotls_log_is_read(line: str, says: Any):
    found = axolotl.read(line)
    if says == "nan":
        assert found is not None
        assert found.loss != found.loss
    else:
        assert found == says


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "2026-11-25 12:00:00 | INFO | root | step 4 | epoch 1 | loss 2.1250 | grad_norm 0.9000 | lr 1.00e-05 | mem "
            "51.20 GiB | tps 1234.50(154.31/gpu) | num_label_tokens 812",
            StepLine(2.125, 0.9, 1e-5, 1.0, 5),
        ),
        ('[val] name "default" | step 4 | epoch 1 | loss 2.1 | lr 1.00e-05 | num_label_tokens 1', None),
        ("Saving checkpoint to output/epoch_0_step_4", None),
    ],
)
def test_automodels_log_is_read(line: str, says: StepLine | None):
    assert automodel.read(line) == says


def test_the_last_error_is_the_trainers_own_and_not_its_launchers(tmp_path: Path):
    log = tmp_path / "stderr"
    log.write_text(
        "Traceback (most recent call last):\n  File \"x.py\", line 1\n\x1b[31mValueError: no such layer\x1b[0m\n"
        "E1125 torch.distributed.elastic.multiprocessing failed\nTraceback (most recent call last):\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n=====\n"
    )  # fmt: skip
    assert last_error(log).splitlines()[0] == "ValueError: no such layer"
    log.write_text("killed\nno exception here\n")
    assert last_error(log) == "killed\nno exception here"


def test_a_trainer_that_says_nothing_is_taken_to_hang(tmp_path: Path):
    now = [0.0]
    attempt = Attempt(tmp_path, (), Journal(tmp_path / "events.jsonl", 1), ending=lambda: None)
    follower = Follower(attempt, spec(), 0, 20.0, clock=lambda: now[0])
    now[0] = FIRST_STEP_S - 1
    assert follower.hangs() is None
    follower.take(StepLine(loss=2.0))
    now[0] += SILENCE_S - 1
    assert follower.hangs() is None
    now[0] += 2
    assert "no step for" in (follower.hangs() or "")


def test_a_gpu_is_reckoned_with_the_memory_that_its_driver_reports():
    assert device_of("NVIDIA H200", 143_771).usable_bytes == GPUS["H200"].usable_bytes
    small = device_of("NVIDIA A10G", 23_028)
    assert small.name == "NVIDIA A10G"
    assert small.memory_bytes == 23_028 * 2**20


@pytest.mark.parametrize(("name", "gpus"), [("qlora-axolotl", 1), ("lora-automodel", 4), ("full-automodel", 32)])
def test_the_examples_recipes_are_what_is_rendered_today(name: str, gpus: int):
    example = SftSpec.model_validate_json((EXAMPLES / f"{name}.json").read_bytes())
    assert render(example, known("small4"), h100(gpus), RUN).text() == (EXAMPLES / f"{name}.yaml").read_text()
