"""`automodel CONFIG --nproc-per-node N` as a job meets it: release 0.7.0 of nemo-automodel (PyPI).

Sources in the wheel, read on 2026-11-25: `cli/app.py`, `recipes/_typed_config.py` with the dataclasses that it builds
(unknown keys of these raise TypeError), `recipes/llm/train_ft.py` (the line of a step), `components/checkpoint/`
(folders), `components/training/step_scheduler.py` (SIGTERM).
"""

import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import yaml
from trainer_doubles import Refused, Run, check, write_weights

NUMBER = (int, float)
SCHEMA: dict[str, Any] = {
    "recipe": {"TrainFinetuneRecipeForNextTokenPrediction"}, "seed": int,
    "model": {
        "_target_": {"nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained"},
        "pretrained_model_name_or_path": str, "torch_dtype": {"bf16", "float32"}, "trust_remote_code": bool,
    },
    "peft": {
        "_target_": {"nemo_automodel.components._peft.lora.PeftConfig"}, "target_modules": list, "dim": int,
        "alpha": int, "dropout": float, "moe_rank_scaling": bool,
    },
    "quantization": {"load_in_4bit": bool},
    "freeze_config": {"freeze_modules": [{"glob": str, "path": str}], "unfreeze_modules": [{"glob": str, "path": str}]},
    "dataset": {"_target_": {"datasets.load_dataset"}, "path": str, "data_files": str, "split": str},
    "dataloader": {
        "_target_": {"torchdata.stateful_dataloader.StatefulDataLoader"}, "shuffle": bool,
        "collate_fn": {"nemo_automodel.components.datasets.utils.default_collater"},
    },
    "loss_fn": {"_target_": {"nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"}},
    "optimizer": {
        "_target_": {"torch.optim.AdamW"}, "lr": float, "betas": list, "eps": float, "weight_decay": NUMBER,
    },
    "lr_scheduler": {
        "lr_decay_style": {"constant", "cosine", "linear", "inverse-square-root", "WSD"}, "lr_warmup_steps": int,
        "lr_decay_steps": int, "init_lr": float, "min_lr": float,
    },
    "clip_grad_norm": {"max_norm": NUMBER},
    "step_scheduler": {
        "global_batch_size": int, "local_batch_size": int, "max_steps": int, "num_epochs": int,
        "ckpt_every_steps": int, "save_checkpoint_every_epoch": bool, "validate_on_checkpoint": bool,
    },
    "distributed": {
        "strategy": {"fsdp2", "megatron_fsdp", "ddp"}, "tp_size": int, "cp_size": int, "pp_size": int, "ep_size": int,
        "activation_checkpointing": bool,
    },
    "dist_env": {"backend": {"nccl", "gloo"}, "timeout_minutes": int},
    "checkpoint": {
        "enabled": bool, "checkpoint_dir": str, "model_save_format": {"safetensors", "torch_save"},
        "save_consolidated": {"false", "final", "every"}, "max_recent_checkpoints": int,
        "dequantize_base_checkpoint": bool,
    },
}  # fmt: skip


def main(argv: list[str]) -> int:
    """Train as told. Returns the exit status."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))  # noqa: ARG005
    try:
        path, option, ranks = argv
        assert option == "--nproc-per-node", argv
        config = validated(yaml.safe_load(Path(path).read_text()), int(ranks))
        log(f"Launching job locally on {ranks} devices")
        train(config, told)
    except Refused as refusal:
        print(f"Traceback (most recent call last):\n  ...\nTypeError: {refusal}", file=sys.stderr)
        return 1
    except RuntimeError:
        traceback.print_exc()
        return 1
    return 0


def validated(config: dict[str, Any], ranks: int) -> dict[str, Any]:
    """The rules of the configs' own checks that concern the keys above."""
    check("", config, SCHEMA)
    sizes, steps, rates = config["distributed"], config["step_scheduler"], config["lr_scheduler"]
    parallel = ranks // sizes["tp_size"]
    if ranks % sizes["tp_size"] or parallel % sizes["ep_size"]:
        raise Refused(f"ep_size {sizes['ep_size']} must divide the {parallel} data-parallel ranks")
    if steps["global_batch_size"] % (steps["local_batch_size"] * parallel):
        raise Refused("global_batch_size must be divisible by local_batch_size * dp_size")
    if rates["lr_warmup_steps"] >= rates["lr_decay_steps"]:
        raise Refused("lr_warmup_steps must be below lr_decay_steps")
    return config


def train(config: dict[str, Any], told: list[int]) -> None:
    """Steps from 0, checkpoints by their number, one more on SIGTERM."""
    run, steps = Run(Path(config["dataset"]["data_files"])), config["step_scheduler"]
    output = Path(config["checkpoint"]["checkpoint_dir"])
    start = newest(output)
    if start:
        print(f"Loading checkpoint from {output}/epoch_0_step_{start - 1}", flush=True)
    for step in range(start, steps["max_steps"]):
        loss = run.step(step + 1)
        log(
            f"step {step} | epoch 0 | loss {loss:.4f} | grad_norm {1.5:.4f} | lr {config['optimizer']['lr']:.2e} | mem "
            f"{51.25:.2f} GiB | tps {1234.5:.2f}({617.25:.2f}/gpu) | num_label_tokens 60"
        )
        last = step + 1 == steps["max_steps"]
        if last or told or step % steps["ckpt_every_steps"] == steps["ckpt_every_steps"] - 1:
            save(config, run, step, last=last)
        if told:
            return


def save(config: dict[str, Any], run: Run, step: int, *, last: bool) -> None:
    """Adapters in `model`, whole weights gathered in `model/consolidated` after the last step; marked meanwhile."""
    folder = Path(config["checkpoint"]["checkpoint_dir"]) / f"epoch_0_step_{step}"
    (folder / "model").mkdir(parents=True)
    (folder / ".incomplete").touch()
    run.tear(step + 1)
    log(f"Saving checkpoint to {folder}")
    peft, base = config.get("peft"), Path(config["model"]["pretrained_model_name_or_path"])
    if peft:
        write_weights(base, folder / "model", full=False, rank=peft["dim"], alpha=peft["alpha"])
        (folder / "model" / "automodel_peft_config.json").write_text("{}")
    else:
        (folder / "model" / "shard-00001-model-00001-of-00001.safetensors").touch()
        if last:
            write_weights(base, folder / "model" / "consolidated", full=True)
    (folder / "losses.json").write_text('{"train_loss": 1.0}')
    (folder / ".incomplete").unlink()


def newest(output: Path) -> int:
    """Steps done at the newest checkpoint without the mark."""
    whole = (path for path in output.glob("epoch_*_step_*") if not (path / ".incomplete").exists())
    return max((int(path.name.split("_")[-1]) + 1 for path in whole), default=0)


def log(message: str) -> None:
    """As `components/loggers/log_utils.py` formats it; to standard error."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} | INFO | root | {message}", file=sys.stderr, flush=True)
