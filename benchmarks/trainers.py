"""Whole training loops, metrics and checkpoints on: tokens per second, ours against HF's Trainer and plain TRL.

    python -m benchmarks trainers [pretrain|sft] [--preset micro] [--windows 15] [--threads 1]

Every loop runs whole, in a process of its own that stands still while it is another's turn. Bars: with the same model
code the lower 95 % bound is at least 0.95x; pre-training with our model code against transformers' own in float32 at
least 1.2x on `micro`.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from benchmarks.training_step import ratio, spec_of, windows_of
from nightsmith.model import arithmetic
from nightsmith.model.dequantise import dequantised
from nightsmith.model.files import weights_digest
from nightsmith.model.load import load, load_tokenizer
from nightsmith.model.lora import add_adapters
from nightsmith.model.pull import planner_gguf
from nightsmith.model.small4 import build, make_config
from nightsmith.record.digest import file_digest
from nightsmith.trainer import sft
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.journal import Journal
from nightsmith.trainer.post_training import ModelRef
from nightsmith.trainer.pretrain import Pretraining
from nightsmith.trainer.sft_rows import training_rows
from nightsmith.trainer.spec import PretrainSpec, SftSpec

CHECKPOINT_S = 20.0
"""Ours saves by the wall clock, that is about every ten seconds of its own turns."""
WINDOW_S = 1.5


class Turn:
    """A loop's side: counts its steps, and stands still while it is another loop's turn."""

    def __init__(self, pipe: Connection) -> None:
        """`pipe` leads to whoever gives the turns."""
        self._pipe, self._steps, self._began = pipe, -1, 0.0

    def passed(self) -> None:
        """A step is done. The first one warms up; at the end of a window its seconds per step are told."""
        self._steps += 1
        spent = time.perf_counter() - self._began
        if self._steps > 0 and spent < WINDOW_S:
            return
        self._pipe.send(spent / max(1, self._steps))
        self._pipe.recv()
        self._steps, self._began = 0, time.perf_counter()


Loop = Callable[[Turn, Path], None]
"""A whole training loop in a folder, which calls `Turn.passed` after every step."""


def run_loop(loop: Loop, pipe: Connection, folder: Path, threads: int) -> None:
    """What the process of a loop does: it trains until it is killed."""
    torch.set_num_threads(threads)
    loop(Turn(pipe), folder)


def interleaved(loops: dict[str, Loop], num_windows: int, threads: int) -> dict[str, list[float]]:
    """Seconds per step of each loop and window. One window of each comes before, to warm up."""
    fork = multiprocessing.get_context("fork")  # nothing has been computed here yet
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        pipes: dict[str, Connection] = {}
        for name, loop in loops.items():
            folder = Path(scratch, str(len(pipes)))
            folder.mkdir()
            pipes[name], theirs = fork.Pipe()
            process = fork.Process(target=run_loop, args=(loop, theirs, folder, threads))
            process.start()
            theirs.close()
            stack.callback(process.kill)
            pipes[name].recv()  # its first step is done
        for window in range(num_windows + 1):
            for name, pipe in pipes.items():
                pipe.send(None)
                spent = pipe.recv()
                seconds[name] += [spent] if window else []
    return seconds


class Passing(TrainerCallback):
    """Tells the turns that a step of transformers' loop is done, and has it save as often as ours does."""

    def __init__(self, turn: Turn) -> None:
        """Whose turn it is."""
        self._turn, self._saved = turn, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """A step is done."""
        if time.monotonic() - self._saved >= CHECKPOINT_S:
            control.should_save, self._saved = True, time.monotonic()
        self._turn.passed()
        return control


def attempt_of(turn: Turn, folder: Path, threads: int) -> Attempt:
    """An attempt whose every look at whether to end, one a step, passes the step."""
    journal = Journal(folder / "events.jsonl", 1)
    return Attempt(folder, tuple(f"cpu:{place}" for place in range(threads)), journal, turn.passed)


def our_pretraining(spec: PretrainSpec, threads: int) -> Loop:
    """The trainer's own loop."""

    def loop(turn: Turn, folder: Path) -> None:
        Pretraining(attempt_of(turn, folder, threads), spec, windows_of(spec)).train()

    return loop


def hf_pretraining(spec: PretrainSpec, *, stock: bool) -> Loop:
    """HF's Trainer, with our model as we train it, or with transformers' own in float32."""

    def loop(turn: Turn, folder: Path) -> None:
        torch.manual_seed(0)
        if stock:
            model: Any = Mistral4ForCausalLM(make_config(spec.architecture))
            model.set_experts_implementation("grouped_mm")
            computing = arithmetic.Arithmetic()
        else:
            model = build(spec.architecture, seed=0)
            computing = arithmetic.choose(model, torch.device("cpu"), "auto")
        windows = windows_of(spec)
        rows = [row for step in range(400) for row in windows.batch(step)[:, :-1].tolist()]
        data = Dataset.from_dict({"input_ids": rows, "labels": rows}).with_format("torch")
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=spec.num_steps, learning_rate=spec.learning_rate, adam_beta2=spec.beta2,
            per_device_train_batch_size=spec.architecture.batch_size, weight_decay=spec.weight_decay,
            lr_scheduler_type="cosine", optim="adamw_torch_fused", bf16=computing.products == "bfloat16",
            save_strategy="no", save_total_limit=2, report_to="none", disable_tqdm=True, use_cpu=True, logging_steps=10,
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Passing(turn)])
        trainer.remove_callback(PrinterCallback)
        with computing.applied(model.train()):
            trainer.train()

    return loop


def pretrain(args: argparse.Namespace) -> None:
    """Pre-training: ours, HF's Trainer on our model, HF's Trainer on transformers' model."""
    spec = spec_of(args.preset, checkpoint_every_s=CHECKPOINT_S)
    tokens = spec.architecture.batch_size * spec.architecture.seq_len
    loops: dict[str, Loop] = {
        "ours": our_pretraining(spec, args.threads),
        "HF Trainer, our model": hf_pretraining(spec, stock=False),
        "HF Trainer, stock model": hf_pretraining(spec, stock=True),
    }
    report(f"pretrain {args.preset}", interleaved(loops, args.windows, args.threads), tokens)


def pairs(folder: Path, num_rows: int = 400) -> Path:
    """Rows of one length, so that every step is as much work."""
    rows = [
        json.dumps([
            {"role": "user", "content": f"What is the number after {1000 + n}?"},
            {"role": "assistant", "content": f"The number after {1000 + n} is {1001 + n}."},
        ])
        for n in range(num_rows)
    ]  # fmt: skip
    path = folder / "train.parquet"
    pq.write_table(pa.table({"row_id": [f"{n:08d}" for n in range(num_rows)], "messages": rows, "text": rows}), path)
    return path


def our_sft(spec: SftSpec, threads: int) -> Loop:
    """The job, from its rows to its end."""

    def loop(turn: Turn, folder: Path) -> None:
        sft.run(attempt_of(turn, folder, threads), spec)

    return loop


def plain_sft(spec: SftSpec) -> Loop:
    """TRL's SFTTrainer on the same rows, model and settings, as one would write it."""

    def loop(turn: Turn, folder: Path) -> None:
        base = Path(spec.model.path)
        model = add_adapters(load(base), base=base, rank=spec.lora_rank, alpha=spec.lora_alpha, seed=spec.seed)
        tokenizer = load_tokenizer(base)
        rows = training_rows(spec, tokenizer)
        data = Dataset.from_dict({"input_ids": list(rows.ids), "labels": list(rows.labels)})
        arguments = SFTConfig(
            output_dir=str(folder), max_steps=spec.num_steps, learning_rate=spec.learning_rate, use_cpu=True,
            per_device_train_batch_size=spec.batch_size, bf16=arithmetic.multiplies_bfloat16(), max_length=None,
            gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True}, save_strategy="no",
            save_total_limit=2, report_to="none", disable_tqdm=True, logging_steps=10, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model, args=arguments, train_dataset=data, processing_class=tokenizer,
            callbacks=[Passing(turn)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    return loop


@contextmanager
def sft_spec() -> Iterator[SftSpec]:
    """SmolLM2-135M with LoRA on pairs."""
    base = dequantised(planner_gguf())
    with tempfile.TemporaryDirectory() as scratch:
        data = pairs(Path(scratch))
        yield SftSpec(
            model=ModelRef(path=str(base), weights_digest=weights_digest(base)), data=str(data), batch_size=4,
            data_digest=file_digest(data), num_steps=10_000, checkpoint_every_s=CHECKPOINT_S,
        )  # fmt: skip


def fine_tune(args: argparse.Namespace) -> None:
    """Fine-tuning: ours against plain TRL."""
    with sft_spec() as spec:
        base = Path(spec.model.path)
        tokens = spec.batch_size * len(training_rows(spec, load_tokenizer(base)).ids[0])
        loops: dict[str, Loop] = {"ours": our_sft(spec, args.threads), "plain TRL": plain_sft(spec)}
        report("sft SmolLM2-135M, LoRA", interleaved(loops, args.windows, args.threads), tokens)


def report(what: str, seconds: dict[str, list[float]], tokens: int) -> None:
    """Print each loop's speed, and ours against the others'."""
    for name, windows in seconds.items():
        print(f"{what}: {name:24} {tokens / (sum(windows) / len(windows)):8,.0f} tokens/s, {len(windows)} windows")
    for name, windows in seconds.items():
        if name != "ours":
            print(f"{what}: ours / {name}: {ratio(windows, seconds['ours'])}", flush=True)


def main() -> int:
    """Run one part, or both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", choices=["pretrain", "sft"])
    parser.add_argument("--preset", default="micro")
    parser.add_argument("--windows", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    parts = {"pretrain": pretrain, "sft": fine_tune}
    for name in [args.part] if args.part else parts:
        parts[name](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
