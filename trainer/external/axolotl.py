"""axolotl (https://docs.axolotl.ai), as of release 0.19.0 on PyPI: recipe, log and checkpoints. Torch-free.

Facts are from that wheel: `utils/schemas` (configuration), `cli/main.py` (command), `utils/callbacks/
dynamic_checkpoint.py` (a file that asks for a checkpoint), `train.py` (what is saved where); the log's form from
transformers 5.16.1, which it pins. It ignores keys that its schema does not have, so none may be mistyped here.
"""

import ast
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

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
    require_weights_form,
    router_paths,
    stacked_experts,
    whole_alpha,
)
from nightsmith.trainer.external.tool import Saved, StepLine, Tool

NAME, VERSION = "axolotl", "0.19.0"
TRIGGER = "axolotl_checkpoint.save"
"""A file of this name in the output folder asks for a checkpoint; rank 0 takes it away again."""
STATE = "trainer_state.json"
"""Written last into a checkpoint."""
SCHEDULERS = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_FIGURES = re.compile(r"\{'.*\}")


def refuse(spec: Renderable, shape: ModelShape, config: Mapping[str, Any]) -> None:
    """Raises CannotExpress."""
    require_weights_form(spec, config, NAME, dequantises=False)
    if spec.kind == "dpo" and spec.adaptation == "full":
        raise CannotExpress(
            "adaptation 'full': for dpo axolotl keeps the reference as a second whole model, which no layout here "
            "reckons with. Use 'lora'."
        )
    if config.get("model_type") == "mistral4":
        raise CannotExpress(
            "model: the transformers that axolotl uses has no causal language model of type 'mistral4' alone. Give the "
            "released image and text form (model_type 'mistral3'), or use backend 'automodel'."
        )
    if spec.adaptation != "full" and spec.lora_experts and shape.num_experts and not stacked_experts(shape):
        raise CannotExpress(
            f"lora_experts: the experts of {shape.family} are not stacked in one parameter, which axolotl's adapters "
            "on experts need. Set lora_experts to false."
        )


def recipe(request: Request) -> Recipe:
    """The configuration of a run. Raises CannotExpress."""
    sections = (
        Section(
            request.model_title, {"base_model": str(request.base), "trust_remote_code": False, **_precision(request)}
        ),
        Section("Rows that Nightsmith has tokenised and masked", _data(request)),
        Section("Loss over pairs of answers", _preference(request.spec)),
        Section("What is trained", _trained(request)),
        Section("Optimizer", _optimizer(request.spec)),
        Section("Batches", _batches(request)),
        Section("Layout over the GPUs", _sharding(request)),
        Section("Log and checkpoints", _saving(request)),
    )
    title = f"{NAME} {VERSION}, rendered by Nightsmith from spec {request.spec.digest()[:12]}"
    return Recipe(title, sections, _argv(request), {"AXOLOTL_DO_NOT_TRACK": "1"})


def why_not(spec: Renderable, shape: ModelShape) -> WhyNot:  # noqa: ARG001
    """Axolotl splits by FSDP2 here: its expert parallelism (DeepEP) lays ranks out otherwise, and needs a build."""

    def why(plan: ParallelPlan) -> str | None:
        if plan.ep > 1:
            return "with axolotl weights are split by FSDP alone (expert parallelism: backend 'automodel')"
        if plan.tp > 1 or plan.pp > 1:
            return "with axolotl weights are split by FSDP alone"
        if plan.world > 1 and spec.kind == "dpo" and spec.adaptation == "qlora":
            return "axolotl does not split 4-bit weights for dpo"
        return None

    return why


def read(line: str) -> StepLine | None:
    """A step's line is the dict that transformers' Trainer prints; numbers in it are text."""
    found = _FIGURES.search(line)
    if found is None or "'loss'" not in found[0]:
        return None
    try:
        figures = cast("Mapping[str, Any]", ast.literal_eval(found[0]))
        norm, rate, epoch = (_number(figures, name) for name in ("grad_norm", "learning_rate", "epoch"))
        series = {name: float(value) for name, value in figures.items() if name.startswith("rewards/")}
        return StepLine(float(figures["loss"]), norm, rate, epoch, series=series)
    except (ValueError, SyntaxError, KeyError, TypeError):
        return None


def _number(figures: Mapping[str, Any], name: str) -> float | None:
    return float(figures[name]) if name in figures else None


def saved(output: Path) -> list[Saved]:
    """Whole checkpoints, the newest first."""
    found = [Saved(step, folder) for step, folder in _checkpoints(output) if (folder / STATE).is_file()]
    return sorted(found, key=lambda each: -each.step)


def tidy(output: Path) -> None:
    """It goes on from the checkpoint with the highest number, whole or not."""
    for _, folder in _checkpoints(output):
        if not (folder / STATE).is_file():
            shutil.rmtree(folder)
    (output / TRIGGER).unlink(missing_ok=True)


def ask_to_save(output: Path, child: Child) -> bool:  # noqa: ARG001
    """After its next step it writes a checkpoint."""
    if not output.is_dir():
        return False
    (output / TRIGGER).touch()
    return True


def final(output: Path, spec: Renderable) -> Path | None:  # noqa: ARG001
    """The trained model lies in the output folder itself."""
    return output if any(output.glob("*.safetensors")) else None


def _checkpoints(output: Path) -> list[tuple[int, Path]]:
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in output.glob("checkpoint-*"))
    return [(int(match[1]), path) for match, path in named if match]


def _precision(request: Request) -> dict[str, Any]:
    if not request.on_gpu:
        return {"bf16": False, "tf32": False, "float32": True}
    return {"bf16": True, "tf32": True, "attn_implementation": "sdpa"}


def _data(request: Request) -> dict[str, Any]:
    """Rows with token ids, mask and labels are taken as they are; none is longer than `sequence_len`.

    Pairs are texts (see `rows.write_pairs`); without a `type` they are taken as they are, too.
    """
    form = {} if request.spec.kind == "dpo" else {"ds_type": "parquet"}
    return {
        "datasets": [{"path": str(request.rows), **form}],
        "dataset_prepared_path": str(request.folder / "prepared"),
        "val_set_size": 0.0,
        "sequence_len": request.spec.max_len,
        "excess_length_strategy": "raise",
        "sample_packing": False,
        "shuffle_merged_datasets": True,
        "seed": request.spec.seed,
    }


def _preference(spec: Renderable) -> dict[str, Any]:
    """The loss over pairs, by TRL's names."""
    if spec.kind == "sft":
        return {}
    return {
        "rl": "dpo",
        "rl_beta": spec.beta,
        "dpo_loss_type": [spec.loss_type],
        "dpo_label_smoothing": spec.label_smoothing or None,
    }


def _trained(request: Request) -> dict[str, Any]:
    if request.spec.adaptation == "full":
        return _unfrozen(request)
    return _adapters(request)


def _unfrozen(request: Request) -> dict[str, Any]:
    """Every weight of the text part; routers only where they are asked for.

    In these patterns axolotl takes a dot for a dot, unless a plus sign follows it.
    """
    routers = () if request.spec.train_router else router_paths(request.shape)
    spared = "".join(f"(?!.+{path}.)" for path in routers)
    return {
        "unfrozen_parameters": [f"^{spared}.+"] if spared else None,
        "freeze_mm_modules": True if request.is_wrapper else None,
    }


def _adapters(request: Request) -> dict[str, Any]:
    spec, shape = request.spec, request.shape
    experts = stacked_experts(shape) if spec.lora_experts else []
    within = "model.language_model." if request.is_wrapper else "model."
    blocks = (f"{re.escape(block)}\\.({'|'.join(names)})" for block, names in adapted_blocks(shape).items())
    is_quantised = spec.adaptation == "qlora"
    return {
        "adapter": spec.adaptation,
        "load_in_4bit": True if is_quantised else None,
        "quantize_moe_experts": True if is_quantised and shape.num_experts else None,
        "lora_r": spec.lora_rank,
        "lora_alpha": whole_alpha(spec, NAME),
        "lora_dropout": 0.0,
        "lora_target_modules": rf"{re.escape(within)}layers\.\d+\.({'|'.join(blocks)})",
        "lora_target_parameters": experts or None,
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
    }


def _optimizer(spec: Renderable) -> dict[str, Any]:
    return {
        "optimizer": "adamw_torch",
        "learning_rate": spec.learning_rate,
        "lr_scheduler": SCHEDULERS[spec.schedule],
        "warmup_steps": round(spec.warmup_share * spec.num_steps),
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.grad_clip,
    }


def _batches(request: Request) -> dict[str, Any]:
    return {
        "max_steps": request.spec.num_steps,
        "micro_batch_size": request.layout.micro_batch,
        "gradient_accumulation_steps": request.layout.accumulation,
    }


def _sharding(request: Request) -> dict[str, Any]:
    """FSDP2. With 4-bit weights every rank reads the model itself: axolotl refuses to load them on one rank only."""
    if request.layout.plan.world == 1:
        return {"gradient_checkpointing": True if request.on_gpu else None}
    return {
        "fsdp_version": 2,
        "fsdp_config": {
            "offload_params": False,
            "cpu_ram_efficient_loading": request.spec.adaptation != "qlora",
            "state_dict_type": "SHARDED_STATE_DICT",
            "final_state_dict_type": "FULL_STATE_DICT",
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "reshard_after_forward": True,
            "activation_checkpointing": True,
        },
    }


def _saving(request: Request) -> dict[str, Any]:
    """Checkpoints are asked for by the clock, through a file."""
    return {
        "output_dir": str(request.output),
        "logging_steps": 1,
        "save_strategy": "no",
        "save_total_limit": 2,
        "dynamic_checkpoint": {"enabled": True, "check_interval": 1},
        "auto_resume_from_checkpoints": True,
    }


def _argv(request: Request) -> tuple[str, ...]:
    layout, recipe_file = request.layout, str(request.folder / RECIPE_FILE)
    if layout.plan.world == 1:
        return (NAME, "train", recipe_file, "--launcher", "python")
    ranks = ("--nproc-per-node", str(layout.processes))
    if layout.nodes > 1:
        ranks = ("--nnodes", str(layout.nodes), *ranks, "--rdzv_backend", "c10d", "--rdzv_endpoint", "HOST:29500")
    return (NAME, "train", recipe_file, "--launcher", "torchrun", "--", *ranks)


TOOL = Tool(
    name=NAME, executable="axolotl", package="axolotl", version=VERSION, needs_gpu=False, shifted=False,
    refuse=refuse, why_not=why_not, recipe=recipe, read=read, saved=saved, tidy=tidy, ask_to_save=ask_to_save,
    ends_by_signal=False,
    final=final,
)  # fmt: skip
