"""`axolotl train CONFIG` as a job meets it: command line, schema, log and folders of release 0.19.0 (PyPI).

Sources in the wheel: `cli/main.py`, `utils/schemas/*.py` (keys and types below, read on 2026-11-25; the real schema
ignores other keys silently, this one refuses them), `core/trainers/base.py` and transformers 5.16.1's
`trainer_callback.py` (the line of a step), `utils/callbacks/dynamic_checkpoint.py`, `train.py`.
"""

import sys
import time
import traceback
from pathlib import Path
from typing import Any

import yaml
from trainer_doubles import ROWS, Refused, Run, check, write_weights

NUMBER = (int, float)
DATASET = {"path": str, "ds_type": str, "type": str, "split": str}
DPO_DATASET = {"path": str, "type": str, "split": str, "data_files": list, "revision": str}
FSDP = {
    "offload_params": bool, "cpu_ram_efficient_loading": bool, "reshard_after_forward": bool,
    "activation_checkpointing": bool, "auto_wrap_policy": {"TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP"},
    "state_dict_type": {"FULL_STATE_DICT", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT"},
    "final_state_dict_type": {"FULL_STATE_DICT", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT"},
}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "base_model": str, "trust_remote_code": bool, "bf16": bool, "tf32": bool, "float32": bool,
    "attn_implementation": str, "datasets": [DATASET], "dataset_prepared_path": str, "val_set_size": float,
    "sequence_len": int, "excess_length_strategy": {"drop", "truncate", "raise"}, "sample_packing": bool,
    "shuffle_merged_datasets": bool, "seed": int, "adapter": {"lora", "qlora"}, "load_in_4bit": bool,
    "quantize_moe_experts": bool, "lora_r": int, "lora_alpha": int, "lora_dropout": float,
    "lora_target_modules": (str, list), "lora_target_parameters": (str, list), "lora_mlp_kernel": bool,
    "lora_qkv_kernel": bool, "lora_o_kernel": bool, "unfrozen_parameters": list, "freeze_mm_modules": bool,
    "optimizer": str, "learning_rate": NUMBER, "lr_scheduler": str, "warmup_steps": int, "weight_decay": NUMBER,
    "max_grad_norm": NUMBER, "max_steps": int, "micro_batch_size": int, "gradient_accumulation_steps": int,
    "gradient_checkpointing": bool, "fsdp_version": int, "fsdp_config": FSDP, "output_dir": str, "logging_steps": int,
    "save_strategy": str, "save_total_limit": int, "rl": {"dpo"}, "rl_beta": NUMBER, "dpo_loss_type": list,
    "dpo_label_smoothing": NUMBER, "auto_resume_from_checkpoints": bool,
    "dynamic_checkpoint": {"enabled": bool, "check_interval": int, "trigger_file_path": str},
}  # fmt: skip


def main(argv: list[str]) -> int:
    """Train as told. Returns the exit status."""
    try:
        config = validated(parsed(argv))
        train(config)
    except Refused as refusal:
        error = f"pydantic_core._pydantic_core.ValidationError: 1 validation error for AxolotlInputConfig\n{refusal}"
        print(f"Traceback (most recent call last):\n  ...\n{error}", file=sys.stderr)
        return 1
    except RuntimeError:
        traceback.print_exc()
        return 1
    return 0


def parsed(argv: list[str]) -> dict[str, Any]:
    """`train CONFIG --launcher NAME [-- ARGUMENTS OF THE LAUNCHER]`."""
    command, config, option, launcher, *rest = argv
    assert command == "train", argv
    assert option == "--launcher", argv
    if launcher not in ("accelerate", "torchrun", "python"):
        raise Refused(f"--launcher: {launcher!r} is not one of 'accelerate', 'torchrun', 'python'.")
    assert not rest or rest[0] == "--", argv
    return yaml.safe_load(Path(config).read_text())


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """The rules of `utils/schemas/validation.py` that concern the keys above."""
    check("", config, SCHEMA | ({"datasets": [DPO_DATASET]} if "rl" in config else {}))
    if missing := {"base_model", "datasets", "learning_rate", "micro_batch_size"} - config.keys():
        raise Refused(f"{min(missing)}: Field required")
    if config.get("adapter") == "qlora" and not config.get("load_in_4bit"):
        raise Refused("Require cfg.load_in_4bit to be True for qlora")
    if "rl" not in config and config.keys() & {"dpo_loss_type", "dpo_label_smoothing"}:
        raise Refused("`dpo_loss_type` and `dpo_loss_weights` are for DPO only")
    if config.get("rl") and config.get("load_in_4bit") and config.get("fsdp_version") == 2:
        raise Refused("FSDP2 does not support load_in_8bit or load_in_4bit with dpo")
    if config.get("quantize_moe_experts") and not config.get("load_in_4bit"):
        raise Refused("quantize_moe_experts requires load_in_4bit or load_in_8bit")
    if config.get("lora_target_parameters") and config.get("lora_dropout"):
        raise Refused("lora_dropout must be 0 when lora_target_parameters is set.")
    if config.get("load_in_4bit") and config.get("fsdp_config", {}).get("cpu_ram_efficient_loading"):
        raise Refused("FSDP2 does not support `cpu_ram_efficient_loading` with load_in_4bit")
    return config


def train(config: dict[str, Any]) -> None:
    """Steps, checkpoints on demand, the final model."""
    output, steps = Path(config["output_dir"]), config["max_steps"]
    output.mkdir(parents=True, exist_ok=True)
    columns = ("prompt", "chosen", "rejected") if "rl" in config else ROWS
    run, done = Run(Path(config["datasets"][0]["path"]), columns), newest(output)
    if done:
        log(f"Using auto-resume functionality to resume from checkpoint at {output}/checkpoint-{done}")
    log("Starting trainer...")
    batch = config["micro_batch_size"] * config["gradient_accumulation_steps"]
    for step in range(done + 1, steps + 1):
        loss = run.step(step)
        print(f"\r{step:3d}/{steps} [00:00<00:00,  9.9it/s]", end="", file=sys.stderr, flush=True)
        print(figures(config, step, loss, step * batch / len(run.rows)), flush=True)
        trigger = output / "axolotl_checkpoint.save"
        if trigger.exists():
            trigger.unlink()
            log(f"Saving dynamic checkpoint at step {step}")
            save(config, run, step)
    print({"train_runtime": "0.52", "train_samples_per_second": "9.1", "train_loss": "1.1", "epoch": "1"})
    log(f"Training completed! Saving trained model to {output}.")
    write_model(config, output)
    (output / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    log(f"Model successfully saved to {output}")


def figures(config: dict[str, Any], step: int, loss: float, epoch: float) -> dict[str, Any]:
    """A step's line: transformers writes floats as text of four digits, axolotl adds its own figures."""
    rate = config["learning_rate"] * min(1.0, (step - 1) / max(1, config["warmup_steps"]))
    floats = {"loss": loss, "grad_norm": 1.5, "learning_rate": rate, "ppl": 2.71828, "memory/max_active (GiB)": 0.0}
    texts = {name: f"{value:.4g}" for name, value in floats.items()}
    tokens = {"tokens/train_per_sec_per_gpu": "123.4", "tokens/trainable": 11 * step, "tokens/total": 22 * step}
    if "rl" in config:
        tokens = {"rewards/chosen": "0.1", "rewards/rejected": "-0.1", "rewards/accuracies": f"{0.5 + 0.1 * step:.4g}"}
    return {**texts, **tokens, "epoch": f"{epoch:.4g}"}


def save(config: dict[str, Any], run: Run, step: int) -> None:
    """Weights first, the trainer's state last."""
    folder = Path(config["output_dir"]) / f"checkpoint-{step}"
    write_model(config, folder)
    run.tear(step)
    (folder / "trainer_state.json").write_text(f'{{"global_step": {step}}}')


def write_model(config: dict[str, Any], folder: Path) -> None:
    write_weights(
        Path(config["base_model"]), folder, full="adapter" not in config, rank=config.get("lora_r", 0),
        alpha=config.get("lora_alpha", 0),
    )  # fmt: skip


def newest(output: Path) -> int:
    """The checkpoint of the highest number, whole or not; one that is not cannot be gone on from."""
    steps = [int(path.name.split("-")[1]) for path in output.glob("checkpoint-*")]
    step = max(steps, default=0)
    if step and not (output / f"checkpoint-{step}" / "trainer_state.json").is_file():
        raise RuntimeError(f"Can't find a valid checkpoint at {output}/checkpoint-{step}")
    return step


def log(message: str) -> None:
    """As `logging_config.py` formats it."""
    print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')},000] [INFO] [axolotl.train] {message}\x1b[39m", flush=True)
