"""NeMo AutoModel (https://docs.nvidia.com/nemo/automodel), as of release 0.7.0 on PyPI: recipe, log, checkpoints.

Facts are from that wheel: `recipes/_typed_config.py` and the dataclasses that it builds (configuration), `cli/app.py`
(command), `recipes/llm/train_ft.py` (the log's line), `components/checkpoint` (what is saved where),
`components/training/step_scheduler.py` (SIGTERM: a checkpoint, then the end). Torch-free.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.trainer.external.layout import WhyNot
from nightsmith.trainer.external.process import Child
from nightsmith.trainer.external.recipe import RECIPE as RECIPE_FILE
from nightsmith.trainer.external.recipe import (
    CannotExpress,
    Recipe,
    Renderable,
    Request,
    Section,
    adapted_blocks,
    quant_method,
    require_weights_form,
    whole_alpha,
)
from nightsmith.trainer.external.tool import Saved, StepLine, Tool

NAME, VERSION = "automodel", "0.7.0"
INCOMPLETE = ".incomplete"
"""Marks a checkpoint that is being written."""
OWN_EXPERTS = frozenset({"mistral3", "mistral4", "qwen3_moe"})
"""Model types whose routers AutoModel builds itself, as `mlp.gate`."""
TIMEOUT_MINUTES = 30
"""Of collectives: a checkpoint of a large model is written between two of them."""
_CHECKPOINT = re.compile(r"epoch_(\d+)_step_(\d+)")
_NUMBER = r"([-+.\w]+)"
_STEP = re.compile(
    rf"\bstep (\d+) \| epoch (\d+) \| loss {_NUMBER} \| grad_norm {_NUMBER} \| lr {_NUMBER} \| mem {_NUMBER} GiB \|"
)


def refuse(spec: Renderable, shape: ModelShape, config: Mapping[str, Any]) -> None:
    """Raises CannotExpress."""
    if spec.kind != "sft":
        raise CannotExpress(f"kind {spec.kind!r}: NeMo AutoModel {VERSION} trains on answers alone. Use 'axolotl'.")
    require_weights_form(spec, config, "NeMo AutoModel", dequantises=True)
    if spec.adaptation == "qlora" and shape.num_experts:
        raise CannotExpress(
            "adaptation 'qlora': NeMo AutoModel's 4-bit weights (bitsandbytes) leave out routed experts, which are "
            "nearly all of this model. Use 'lora', or backend 'axolotl'."
        )
    family = config.get("model_type", shape.family)
    if spec.adaptation == "full" and shape.num_experts and not spec.train_router and family not in OWN_EXPERTS:
        raise CannotExpress(
            f"train_router false: where NeMo AutoModel keeps the routers of {family!r} is not known here, so they "
            "cannot be frozen. Set train_router to true, or use LoRA."
        )


def recipe(request: Request) -> Recipe:
    """The configuration of a run. Raises CannotExpress."""
    spec = request.spec
    sections = (
        Section("Recipe", {"recipe": "TrainFinetuneRecipeForNextTokenPrediction", "seed": spec.seed}),
        Section(request.model_title, {"model": _model(request), **_trained(request)}),
        Section("Rows that Nightsmith has tokenised and masked", _data(request)),
        Section("Optimizer", _optimizer(spec)),
        Section("Batches", {"step_scheduler": _steps(request)}),
        Section("Layout over the GPUs", {"distributed": _sharding(request), "dist_env": _environment()}),
        Section("Checkpoints", {"checkpoint": _saving(request)}),
    )
    title = f"NeMo AutoModel {VERSION}, rendered by Nightsmith from spec {spec.digest()[:12]}"
    return Recipe(title, sections, _argv(request), {})


def why_not(spec: Renderable, shape: ModelShape) -> WhyNot:  # noqa: ARG001
    """Its published recipes for mixtures of experts use no tensor parallelism."""

    def why(plan: ParallelPlan) -> str | None:
        if plan.pp > 1:
            return "stages of layers are not rendered for NeMo AutoModel"
        if plan.tp > 1 and shape.num_experts:
            return "NeMo AutoModel's recipes for mixtures of experts have tp=1"
        return None

    return why


def read(line: str) -> StepLine | None:
    """A step's line; AutoModel counts steps from 0."""
    found = _STEP.search(line)
    if found is None:
        return None
    step, epoch, loss, norm, rate, _memory = found.groups()
    try:
        return StepLine(float(loss), float(norm), float(rate), float(epoch), int(step) + 1)
    except ValueError:
        return None


def saved(output: Path) -> list[Saved]:
    """Whole checkpoints, the newest first."""
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in output.glob("epoch_*_step_*"))
    whole = [(match, path) for match, path in named if match and not (path / INCOMPLETE).exists()]
    return sorted((Saved(int(match[2]) + 1, path) for match, path in whole), key=lambda each: -each.step)


def tidy(output: Path) -> None:
    """It passes over checkpoints that bear its mark."""


def ask_to_save(output: Path, child: Child) -> bool:  # noqa: ARG001
    """It cannot be asked while it goes on."""
    return False


def final(output: Path, spec: Renderable) -> Path | None:
    """The last step's checkpoint: adapters in `model`, whole weights gathered in `model/consolidated`."""
    newest = next(iter(saved(output)), None)
    if newest is None or newest.step != spec.num_steps:
        return None
    model = newest.folder / "model"
    return model / "consolidated" if spec.adaptation == "full" else model


def _model(request: Request) -> dict[str, Any]:
    """Full training keeps float32 weights and computes in bfloat16 (FSDP2's policy); adapters sit on bfloat16."""
    return {
        "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
        "pretrained_model_name_or_path": str(request.base),
        "torch_dtype": "float32" if request.spec.adaptation == "full" else "bf16",
        "trust_remote_code": False,
    }


def _trained(request: Request) -> dict[str, Any]:
    if request.spec.adaptation == "full":
        return {"freeze_config": _frozen(request)}
    quantised = request.spec.adaptation == "qlora"
    return {"peft": _adapters(request), "quantization": {"load_in_4bit": True} if quantised else None}


def _frozen(request: Request) -> dict[str, Any] | None:
    globs = ["*vision_tower*", "*multi_modal_projector*"] if request.is_wrapper else []
    if request.shape.num_experts and not request.spec.train_router:
        globs.append("*.mlp.gate")
    return {"freeze_modules": [{"glob": glob} for glob in globs]} if globs else None


def _adapters(request: Request) -> dict[str, Any]:
    """AutoModel may join projections (`qkv_proj`), so patterns name the block that they are in."""
    spec = request.spec
    within = "*language_model*." if request.is_wrapper else "*."
    experts = ["*.mlp.experts"] if spec.lora_experts and request.shape.num_experts else []
    return {
        "_target_": "nemo_automodel.components._peft.lora.PeftConfig",
        "target_modules": [*(f"{within}{block}.*proj*" for block in adapted_blocks(request.shape)), *experts],
        "dim": spec.lora_rank,
        "alpha": whole_alpha(spec, "NeMo AutoModel"),
        "dropout": 0.0,
    }


def _data(request: Request) -> dict[str, Any]:
    return {
        "dataset": {
            "_target_": "datasets.load_dataset",
            "path": "parquet",
            "data_files": str(request.rows),
            "split": "train",
        },
        "dataloader": {
            "_target_": "torchdata.stateful_dataloader.StatefulDataLoader",
            "collate_fn": "nemo_automodel.components.datasets.utils.default_collater",
            "shuffle": True,
        },
        "loss_fn": {"_target_": "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"},
    }


def _optimizer(spec: Renderable) -> dict[str, Any]:
    return {
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": spec.learning_rate,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "weight_decay": spec.weight_decay,
        },
        "lr_scheduler": {
            "lr_decay_style": spec.schedule,
            "lr_warmup_steps": round(spec.warmup_share * spec.num_steps),
            "lr_decay_steps": spec.num_steps,
            "init_lr": 0.0,
            "min_lr": 0.0,
        },
        "clip_grad_norm": {"max_norm": spec.grad_clip},
    }


def _steps(request: Request) -> dict[str, Any]:
    spec = request.spec
    return {
        "global_batch_size": spec.batch_size,
        "local_batch_size": request.layout.micro_batch,
        "max_steps": spec.num_steps,
        "ckpt_every_steps": _steps_between_checkpoints(request),
        "save_checkpoint_every_epoch": False,
        "validate_on_checkpoint": False,
    }


def _steps_between_checkpoints(request: Request) -> int:
    """It counts steps, not seconds: as many as take the asked time at the slow end of the expected speed."""
    spec = request.spec
    steps_per_s = request.layout.tokens_per_s / (spec.batch_size * spec.max_len)
    return max(1, min(spec.num_steps, round(spec.checkpoint_every_s * steps_per_s)))


def _sharding(request: Request) -> dict[str, Any]:
    plan = request.layout.plan
    return {
        "strategy": "fsdp2",
        "tp_size": plan.tp,
        "cp_size": 1,
        "pp_size": 1,
        "ep_size": plan.ep,
        "activation_checkpointing": True,
    }


def _environment() -> dict[str, Any]:
    return {"backend": "nccl", "timeout_minutes": TIMEOUT_MINUTES}


def _saving(request: Request) -> dict[str, Any]:
    return {
        "enabled": True,
        "checkpoint_dir": str(request.output),
        "model_save_format": "safetensors",
        "save_consolidated": "final",
        "max_recent_checkpoints": 2,
        "dequantize_base_checkpoint": True if quant_method(request.config) else None,
    }


def _argv(request: Request) -> tuple[str, ...]:
    layout, recipe_file = request.layout, str(request.folder / RECIPE_FILE)
    ranks = ("--nproc-per-node", str(layout.processes))
    if layout.nodes == 1:
        return (NAME, recipe_file, *ranks)
    meeting = ("--nnodes", str(layout.nodes), *ranks, "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500")
    return ("torchrun", *meeting, "-m", "nemo_automodel.cli.app", recipe_file)


TOOL = Tool(
    name=NAME, executable="automodel", package="nemo-automodel", version=VERSION, needs_gpu=True, shifted=True,
    refuse=refuse, why_not=why_not, recipe=recipe, read=read, saved=saved, tidy=tidy, ask_to_save=ask_to_save,
    ends_by_signal=True,
    final=final,
)  # fmt: skip
