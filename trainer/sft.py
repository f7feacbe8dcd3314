"""Fine-tuning of an existing causal language model by TRL's SFTTrainer, as a job.

Rows are tokenised and masked by `sft_rows`; TRL steps and computes the loss on labels. Equal spec and thread count
give bit-equal weights on a CPU, whether the run was interrupted or not.
"""

import json
import math
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from nightsmith.model.files import found_digest, weights_digest
from nightsmith.model.health import RouterHealth, take_health, worst
from nightsmith.model.load import load, load_tokenizer
from nightsmith.model.lora import add_adapters, describe, write_base
from nightsmith.model.router import freeze_routers
from nightsmith.record.errors import Damaged
from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.balancing import attach_balancing
from nightsmith.trainer.device import set_up_torch
from nightsmith.trainer.evaluate import evaluate_model
from nightsmith.trainer.pretrain import tail_mean
from nightsmith.trainer.sft_rows import TrainingRows, training_rows
from nightsmith.trainer.spec import RunStatus, SftSpec

MODEL, STEPS, WHOLE = "model", "trainer", "whole.json"
"""Folders of the final model and of TRL's checkpoints; the file that is written last into either."""
OWN_CONFIG = ("use_cache", "router_aux_loss_coef")
"""Settings of a model that TRL overwrites."""
EVENT_EVERY_S = 1.0
SCHEDULERS = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}
"""Our schedules by their names in transformers."""


@dataclass
class Progress:
    """What resuming needs beside TRL's own checkpoint."""

    initial_digest: str
    """Digest of the trained weights before the first step."""
    step: int = 0
    num_tokens: int = 0
    """Tokens read, padding not counted."""
    train_s: float = 0.0
    """Seconds in training, all attempts together."""
    losses: list[float] = field(default_factory=list[float])
    """Training loss of each step, nats per trained token."""


def run(attempt: Attempt, spec: SftSpec) -> None:
    """Train to the end of the spec, or go on from the newest whole checkpoint, then evaluate. Fills `attempt.facts`.

    Raises:
        Ended: asked to end (a checkpoint to go on from is on disk), or the loss is not finite.
        NightsmithError: model or data cannot be used; the mask audit failed.
    """
    final = attempt.run_dir / MODEL
    if not (final / WHOLE).is_file():
        _train(attempt, spec, final)
    _take_facts(attempt, Progress(**json.loads((final / WHOLE).read_text())))
    attempt.facts.checkpoint, attempt.facts.checkpoint_digest = final, weights_digest(final)
    shutil.rmtree(attempt.run_dir / STEPS, ignore_errors=True)
    if spec.dev_suite is not None:
        evaluate_model(attempt, load(final).to(set_up_torch(attempt)), spec.dev_suite)


def _train(attempt: Attempt, spec: SftSpec, final: Path) -> None:
    attempt.phase("data")
    device, base = set_up_torch(attempt), Path(spec.model.path)
    if found_digest(base) != spec.model.weights_digest:
        raise Damaged(f"The weights of {base} are not those that the spec names; they were changed. Plan the run anew.")
    tokenizer = load_tokenizer(base)
    rows = training_rows(spec, tokenizer)
    attempt.facts.metrics.update(rows.metrics())
    attempt.phase("build")
    found = _newest(attempt.run_dir)
    # transformers resumes by names in memory, and experts that are saved one by one have others: load them here.
    model = load(found if found and spec.adaptation == "full" else base)
    if spec.adaptation == "lora":
        model = add_adapters(model, base=base, rank=spec.lora_rank, alpha=spec.lora_alpha, seed=spec.seed)
    elif not spec.train_router:
        freeze_routers(model)
    adapted = describe(model)
    attempt.journal.write("model", trained=adapted.num_trained, parameters=adapted.num_all, modules=adapted.modules)
    progress = _progress(found) if found else Progress(initial_digest=_initial_digest(model, spec))
    watch = Watch(attempt, spec, progress)
    trainer = _trainer(model, tokenizer, rows, _arguments(spec, attempt.run_dir, device.type), watch)
    attach_balancing(trainer)
    attempt.phase("train")
    watch.begin()
    trainer.train(resume_from_checkpoint=str(found) if found else None)
    attempt.end_if_asked()
    _save(trainer.model, tokenizer, spec, progress, final)


class Watch(TrainerCallback):
    """Writes the journal, counts, saves by the clock, and ends the run in order when it has to end."""

    def __init__(self, attempt: Attempt, spec: SftSpec, progress: Progress) -> None:
        """`progress` is what earlier attempts had done."""
        self._attempt, self._spec, self._progress = attempt, spec, progress
        self._tokens_before, self._seconds_before = progress.num_tokens, progress.train_s
        self._began = self._event_at = self._save_at = 0.0

    def begin(self) -> None:
        """Training begins now."""
        self._began = time.monotonic()
        self._save_at = self._began + self._spec.checkpoint_every_s
        _take_facts(self._attempt, self._progress)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """After each step: its loss. Raises Ended where it is not finite."""
        if "loss" not in (logs or {}):
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm") or 0.0)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise Ended(RunStatus.NOT_FINITE, _not_finite(self._spec, state.global_step, loss, norm))
        progress = self._progress
        progress.losses.append(loss)
        progress.step, progress.num_tokens = state.global_step, int(state.num_input_tokens_seen)
        progress.train_s = self._seconds_before + time.monotonic() - self._began
        _take_facts(self._attempt, progress)
        last = progress.step == self._spec.num_steps
        if last or time.monotonic() >= self._event_at:
            self._write_event(logs, take_health(kwargs["model"]))
            self._event_at = time.monotonic() + EVENT_EVERY_S

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Ask for a checkpoint by the clock, and for the end once the job has to end."""
        ending = self._attempt.ending() is not None
        if (ending or time.monotonic() >= self._save_at) and state.global_step < self._spec.num_steps:
            control.should_save = True
        control.should_training_stop = control.should_training_stop or ending
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Mark TRL's checkpoint as whole; what was there before is kept until then."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / WHOLE).write_text(json.dumps(asdict(self._progress)))
        for old in _checkpoints(folder.parent)[1:]:
            shutil.rmtree(old)
        self._save_at = time.monotonic() + self._spec.checkpoint_every_s
        self._attempt.journal.write("checkpoint", step=state.global_step)

    def _write_event(self, logs: Any, experts: list[RouterHealth]) -> None:
        progress, num_steps = self._progress, self._spec.num_steps
        if experts:
            self._attempt.facts.metrics.update(worst(experts))
        self._attempt.journal.write(
            "step",
            step=progress.step,
            num_steps=num_steps,
            loss=progress.losses[-1],
            learning_rate=logs.get("learning_rate"),
            tokens_per_s=self._attempt.facts.metrics.get("time/tokens_per_s"),
            eta_s=(num_steps - progress.step) * progress.train_s / progress.step,
            attempt_tokens=progress.num_tokens - self._tokens_before,
            router=[vars(layer) for layer in experts],
        )


def _arguments(spec: SftSpec, run_dir: Path, device: str) -> SFTConfig:
    """TRL's settings: nothing is reported anywhere, nothing is saved but what `Watch` asks for."""
    return SFTConfig(
        output_dir=str(run_dir / STEPS),
        max_steps=spec.num_steps,
        per_device_train_batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=SCHEDULERS[spec.schedule],
        warmup_steps=round(spec.warmup_share * spec.num_steps),
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.grad_clip,
        seed=spec.seed,
        data_seed=spec.seed,
        use_cpu=device == "cpu",
        bf16=device != "cpu",
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        router_aux_loss_coef=0.0,  # TRL would add the architecture's balance term (GPT-OSS: 0.9) to the loss
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _trainer(model: Any, tokenizer: Any, rows: TrainingRows, args: SFTConfig, watch: Watch) -> SFTTrainer:
    """TRL's trainer. What it writes into the model's config, which is saved with the weights, is undone."""
    config = model.config.get_text_config()
    kept = {name: getattr(config, name) for name in OWN_CONFIG if hasattr(config, name)}
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=_dataset(rows), processing_class=tokenizer, callbacks=[watch]
    )
    trainer.remove_callback(PrinterCallback)
    for name, value in kept.items():
        setattr(config, name, value)
    return trainer


def _dataset(rows: TrainingRows) -> Dataset:
    return Dataset.from_dict({"input_ids": list(rows.ids), "labels": list(rows.labels)})


def _take_facts(attempt: Attempt, progress: Progress) -> None:
    facts = attempt.facts
    facts.initial_digest, facts.num_steps = progress.initial_digest, progress.step
    facts.num_tokens, facts.train_s = progress.num_tokens, progress.train_s
    if progress.losses and progress.train_s:
        facts.metrics["train/loss"] = tail_mean(progress.losses)
        facts.metrics["time/tokens_per_s"] = progress.num_tokens / progress.train_s


def _initial_digest(model: Any, spec: SftSpec) -> str:
    """Digest of the weights to be trained as `_save` would write them."""
    with tempfile.TemporaryDirectory(prefix="nightsmith-initial-") as scratch:
        _write_weights(model, spec, Path(scratch))
        return weights_digest(Path(scratch))


def _save(model: Any, tokenizer: Any, spec: SftSpec, progress: Progress, final: Path) -> None:
    """Write the final model beside its place and rename it there, so that it is whole or absent."""
    aside = final.with_name(f".{final.name}.tmp")
    for leftover in (aside, final):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir()
    _write_weights(model, spec, aside)
    tokenizer.save_pretrained(aside)
    (aside / WHOLE).write_text(json.dumps(asdict(progress)))
    aside.rename(final)


def _write_weights(model: Any, spec: SftSpec, folder: Path) -> None:
    model.save_pretrained(folder)
    if spec.adaptation == "lora":
        write_base(folder, Path(spec.model.path), spec.model.weights_digest)


def _checkpoints(folder: Path) -> list[Path]:
    """TRL's checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))


def _newest(run_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    return next((path for path in _checkpoints(run_dir / STEPS) if (path / WHOLE).is_file()), None)


def _progress(checkpoint: Path) -> Progress:
    return Progress(**json.loads((checkpoint / WHOLE).read_text()))


def _not_finite(spec: SftSpec, step: int, loss: float, norm: float) -> str:
    return (
        f"Loss {loss:g} with gradient norm {norm:g} at step {step}. Lower the learning rate "
        f"(now {spec.learning_rate:g}) or lengthen the warm-up (now {spec.warmup_share:g} of the steps)."
    )
