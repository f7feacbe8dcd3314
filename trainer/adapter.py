"""`python -m nightsmith.trainer.adapter CONFIG.json`: train a LoRA adapter and export it for the engine.

Killed or stopped at any point, the same command goes on from the last checkpoint.
"""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_file

from nightsmith.model.dequantise import dequantised
from nightsmith.model.load import load_tokenizer
from nightsmith.model.lora_gguf import read_lora_gguf, write_lora_gguf
from nightsmith.model.lora_kernels import kernels
from nightsmith.model.lora_llama import LoraLlama, LoraShape, load_lora_llama
from nightsmith.model.pull import planner_gguf
from nightsmith.record.digest import Contract, file_digest
from nightsmith.trainer.adapter_rows import (
    Lead,
    Row,
    batch_order,
    collate,
    cosine,
    family_prefix_lens,
    mean_loss,
    read_rows,
    shared,
    train_step,
)


class SftConfig(Contract):
    """Training of one adapter, as JSON."""

    data: Path
    """JSON lines {"messages"}: conversations, of which the last answer is trained."""
    out: Path
    """Folder for checkpoints, events.jsonl and the result."""
    dev: Path | None = None
    """Held-out rows in the same form; their loss is measured at every checkpoint."""
    base: Path | None = None
    """GGUF file of the base, or its dequantised folder; null: the embedded planner's base."""
    init: Path | None = None
    """Adapter of an earlier run to start from, adapter_model.safetensors or adapter.gguf; null: fresh adapters."""
    rank: int = Field(default=16, gt=0, le=256)
    """Rank of every adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    first_layer: int = Field(default=0, ge=0)
    """Layers below it get no adapter; less to compute."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Peak learning rate of AdamW."""
    warmup_share: float = Field(default=0.03, ge=0, le=0.5)
    """Share of the steps with linear warm-up."""
    num_epochs: float = Field(default=3.0, gt=0)
    """Passes over the data; fractions allowed."""
    batch_size: int = Field(default=16, gt=0)
    """Rows a step."""
    max_len: int = Field(default=1024, gt=0)
    """Longest row in tokens; a longer one is an error."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are scaled down."""
    lead_tokens: int = Field(default=0, ge=0)
    """First tokens of each answer that count `lead_weight` times in the loss."""
    lead_weight: float = Field(default=1.0, gt=0)
    """Weight of those tokens; the others count once."""
    seed: int = 0
    """Seeds adapters and data order."""
    threads: int | None = Field(default=None, gt=0)
    """Threads; null: one a usable core."""
    checkpoint_every_s: float = Field(default=180.0, gt=0)
    """Seconds between checkpoints."""
    compiled: bool = True
    """Whether to compile the memory-bound passes, where there is a C++ compiler."""

    def num_steps(self, num_rows: int) -> int:
        """Optimizer steps for `num_rows` rows."""
        return max(1, round(self.num_epochs * num_rows / self.batch_size))


@dataclass
class Run:
    """State of a run in progress."""

    config: SftConfig
    model: LoraLlama
    optimizer: torch.optim.Optimizer
    step: int = 0
    losses: list[float] = field(default_factory=list)
    stopped: bool = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """End after the step in progress, with a checkpoint."""
        self.stopped = True

    def save(self, extra: dict[str, Any]) -> Path:
        """Write checkpoint-<step> by rename and drop the older ones. It holds adapter, GGUF, optimizer and step."""
        folder = self.config.out / f"checkpoint-{self.step}"
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        export(self.model, self.config, partial)
        torch.save(self.optimizer.state_dict(), partial / "optimizer.pt")
        (partial / "state.json").write_text(json.dumps({"step": self.step, "losses": self.losses[-50:], **extra}))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        for old in checkpoints(self.config.out)[:-1]:
            shutil.rmtree(old)
        return folder

    def resume(self) -> None:
        """Load the last checkpoint, if there is one."""
        for folder in checkpoints(self.config.out)[-1:]:
            state = json.loads((folder / "state.json").read_text())
            self.model.load_peft_state(load_file(folder / "adapter_model.safetensors"))
            self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
            self.step, self.losses = state["step"], state["losses"]


def checkpoints(out: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(out.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))


def export(model: LoraLlama, config: SftConfig, folder: Path) -> None:
    """Write the adapter as peft reads it and as the engine reads it (`adapter.gguf`)."""
    model.save_pretrained(folder)
    write_lora_gguf(
        folder / "adapter.gguf",
        {name: tensor.numpy() for name, tensor in model.peft_state().items()},
        alpha=config.alpha,
        num_heads=model.config.num_attention_heads,
        num_key_value_heads=model.key_heads,
    )


def adapter_state(path: Path, model: LoraLlama) -> dict[str, torch.Tensor]:
    """An adapter under peft's names, as peft or as the engine keeps it (there in float16)."""
    if path.suffix != ".gguf":
        return load_file(path)
    heads = model.config.num_attention_heads
    arrays = read_lora_gguf(path, num_heads=heads, num_key_value_heads=model.key_heads)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def train(config: SftConfig) -> dict[str, Any]:
    """Train to the end, or to a SIGTERM; returns and writes result.json."""
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    base = config.base if config.base and config.base.is_dir() else dequantised(config.base or planner_gguf())
    tokenizer = load_tokenizer(base)
    rows = read_rows(config.data, tokenizer, config.max_len)
    dev = read_rows(config.dev, tokenizer, config.max_len) if config.dev else []
    model = load_lora_llama(
        base, LoraShape(config.rank, config.alpha, config.first_layer), kernels(compiled=config.compiled)
    )
    if config.init:
        model.load_peft_state(adapter_state(config.init, model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    run = Run(config, model, optimizer)
    run.resume()
    signal.signal(signal.SIGTERM, run.stop)
    return _finish(run, _loop(run, rows, dev))


def _loop(run: Run, rows: list[Row], dev: list[Row]) -> dict[str, Any]:
    config = run.config
    num_steps = config.num_steps(len(rows))
    order = list(batch_order(rows, config.batch_size, num_steps, config.seed))
    total = sum(len(rows[i]) for batch in order[run.step :] for i in batch)
    _say(run, {"rows": len(rows), "steps": num_steps, "from_step": run.step, "tokens": total})
    prefix_lens, lead = family_prefix_lens([*rows, *dev]), Lead(config.lead_tokens, config.lead_weight)
    start = saved = time.monotonic()
    done, dev_loss = 0, None
    while run.step < num_steps and not run.stopped:
        picked = [rows[i] for i in order[run.step]]
        for group in run.optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine(run.step, num_steps, config.warmup_share)
        batch = collate(picked, shared(picked, prefix_lens), lead=lead)
        run.losses.append(train_step(run.model, run.optimizer, batch, config.grad_clip))
        run.step += 1
        done += sum(map(len, picked))
        elapsed = time.monotonic() - start
        if run.step % 10 == 0 or run.step == num_steps:
            recent = run.losses[-10:]
            speed = done / elapsed
            _say(
                run,
                {
                    "step": run.step,
                    "loss": round(sum(recent) / len(recent), 5),
                    "tokens_per_s": round(speed),
                    "eta_s": round((total - done) / speed),
                },
            )
        if time.monotonic() - saved > config.checkpoint_every_s or run.step == num_steps or run.stopped:
            dev_loss = mean_loss(run.model, dev, prefix_lens, config.batch_size) if dev else None
            folder = run.save({"dev_loss": dev_loss})
            _say(run, {"checkpoint": folder.name, "dev_loss": dev_loss})
            saved = time.monotonic()
    return {
        "steps": run.step,
        "of": num_steps,
        "dev_loss": dev_loss,
        "train_s": time.monotonic() - start,
        "tokens": done,
    }


def _finish(run: Run, figures: dict[str, Any]) -> dict[str, Any]:
    last = checkpoints(run.config.out)[-1]
    for name in ("adapter_model.safetensors", "adapter_config.json", "adapter.gguf"):
        shutil.copyfile(last / name, run.config.out / name)
    result = {
        **figures,
        "loss": sum(run.losses[-10:]) / max(1, len(run.losses[-10:])),
        "config": run.config.model_dump(mode="json"),
        "data_digest": file_digest(run.config.data),
        "adapter_gguf_digest": file_digest(run.config.out / "adapter.gguf"),
    }
    (run.config.out / "result.json").write_text(json.dumps(result, indent=2))
    return result


def _say(run: Run, event: dict[str, Any]) -> None:
    line = json.dumps({"at": round(time.time(), 1), **event})
    print(line, flush=True)
    with (run.config.out / "events.jsonl").open("a") as file:
        file.write(line + "\n")


def main() -> None:
    """Read the config named on the command line, train at lower priority, print the result."""
    os.nice(5)
    config = SftConfig.model_validate_json(Path(sys.argv[1]).read_text())
    print(json.dumps(train(config)), flush=True)


if __name__ == "__main__":
    main()
