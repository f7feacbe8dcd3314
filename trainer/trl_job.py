"""What all jobs that TRL trains have in common: a method (sft, dpo, reward, grpo) adds its rows and its trainer.

A new method is a module with a `Method` and the `run` that the worker calls:

    METHOD = Method(rows=read_rows, build=build_trainer, series=("rewards/",))

    def run(attempt: Attempt, spec: DpoSpec) -> None:
        trl_job.run(attempt, spec, METHOD)

`build_trainer(job)` returns TRL's trainer made of `job.settings`, `job.model`, `job.tokenizer` and `job.rows`; this
module adds the callback that watches it, resumes, saves and evaluates. Its spec derives from
`post_training.PostTraining` and joins `spec.RunSpec`; its kind joins `worker.RUNNERS`.

Equal spec and thread count give bit-equal weights on a CPU, whether the run was interrupted or not: TRL's checkpoint
holds weights, optimizer, schedule and torch's generator, its data order is a function of seed and step, and `Progress`
holds the figures so far. What a method computes before the first step must be a function of the spec alone, or be kept
in the run folder.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers import PrinterCallback

from nightsmith.model.arithmetic import multiplies_bfloat16
from nightsmith.model.files import found_digest, weights_digest
from nightsmith.model.load import load, load_tokenizer
from nightsmith.model.lora import Adapted, add_adapters, describe, write_base
from nightsmith.model.router import freeze_routers
from nightsmith.record.errors import Damaged
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.balancing import attach_balancing
from nightsmith.trainer.checkpoint import flush
from nightsmith.trainer.device import set_up_torch
from nightsmith.trainer.evaluate import evaluate_model
from nightsmith.trainer.halted import require_promotable
from nightsmith.trainer.post_training import PostTraining
from nightsmith.trainer.trl_watch import WHOLE, Progress, Watch, checkpoints, take_facts

MODEL, STEPS = "model", "trainer"
"""Folders of the final model and of TRL's checkpoints."""
OWN_CONFIG = ("use_cache", "router_aux_loss_coef")
"""Settings of a model that TRL overwrites."""
SCHEDULERS = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}
"""Our schedules by their names in transformers."""


class Rows(Protocol):
    """A method's data, tokenised and audited."""

    def metrics(self) -> dict[str, float]:
        """What the audit found: `data/rows`, `data/rows_too_long` and the like."""
        ...


@dataclass(frozen=True)
class Job:
    """What a method builds its trainer of."""

    attempt: Attempt
    spec: Any
    """The method's spec."""
    model: Any
    """On the CPU; with fresh adapters where the spec asks for LoRA."""
    tokenizer: Any
    rows: Any
    """What `Method.rows` returned."""
    settings: dict[str, Any]
    """Arguments of TRL's configuration classes that all methods share; a method adds its own, or replaces one."""
    resumed: bool
    """Whether training goes on from a checkpoint."""


def _every_step(spec: Any) -> int:  # noqa: ARG001
    return 1


def _load(checkpoint: Path, spec: Any) -> Any:  # noqa: ARG001
    return load(checkpoint)


def _with_adapters(model: Any, spec: PostTraining, task: str) -> Any:
    base = Path(spec.model.path)
    return add_adapters(model, base=base, rank=spec.lora_rank, alpha=spec.lora_alpha, seed=spec.seed, task=task)


def evaluate_final(attempt: Attempt, spec: PostTraining, final: Path) -> None:
    """Evaluate the final model on the spec's dev suite, if it has one."""
    if spec.dev_suite is not None:
        evaluate_model(attempt, load(final).to(set_up_torch(attempt)), spec.dev_suite)


@dataclass(frozen=True)
class Method:
    """What one method of TRL adds to a job."""

    rows: Callable[[Any, Any], Rows]
    """Spec and tokenizer to the data to train on. Raises NightsmithError where they could teach nothing."""
    build: Callable[[Job], Any]
    """TRL's trainer, without `Watch`."""
    series: tuple[str, ...] = ()
    """Prefixes of TRL's own figures that go into journal and result, under their names there."""
    boundary: Callable[[Any], int] = _every_step
    """Steps between states that a run can be left in and gone on from."""
    load: Callable[[Path, Any], Any] = _load
    """The model of a folder, for a spec, in float32."""
    adapters: Callable[[Any, Any, str], Any] = _with_adapters
    """The model with fresh adapters, of model, spec and task."""
    describe: Callable[[Any], Adapted] = describe
    """What of the model is trained."""
    task: str = "CAUSAL_LM"
    """PEFT's name of what the model is for."""
    finish: Callable[[Attempt, Any, Path], None] = evaluate_final
    """Evaluates the final model, once it is on disk."""


def run(attempt: Attempt, spec: PostTraining, method: Method) -> None:
    """Train to the end of the spec, or go on from the newest whole checkpoint, then evaluate. Fills `attempt.facts`.

    Raises:
        Ended: asked to end (a checkpoint to go on from is on disk), or the loss is not finite.
        NightsmithError: model or data cannot be used; the audit of the data failed.
    """
    final = attempt.run_dir / MODEL
    if not (final / WHOLE).is_file():
        _train(attempt, spec, method, final)
    take_facts(attempt, Progress.read(final))
    attempt.facts.checkpoint, attempt.facts.checkpoint_digest = final, weights_digest(final)
    shutil.rmtree(attempt.run_dir / STEPS, ignore_errors=True)
    method.finish(attempt, spec, final)


def _train(attempt: Attempt, spec: PostTraining, method: Method, final: Path) -> None:
    attempt.phase("data")
    device, base = set_up_torch(attempt), Path(spec.model.path)
    if found_digest(base) != spec.model.weights_digest:
        raise Damaged(f"The weights of {base} are not those that the spec names; they were changed. Plan the run anew.")
    require_promotable(base)
    tokenizer = load_tokenizer(base)
    rows = method.rows(spec, tokenizer)
    attempt.phase("build")
    found = _newest(attempt.run_dir)
    model = _model(attempt, spec, method, found)
    progress = Progress.read(found) if found else Progress(_initial_digest(model, spec), metrics=rows.metrics())
    shared = settings(spec, attempt.run_dir, device.type, attempt.micro_batch_size)
    trainer = _built(method, Job(attempt, spec, model, tokenizer, rows, shared, resumed=found is not None))
    watch = Watch(attempt, spec, progress, series=method.series, boundary=method.boundary(spec))
    trainer.add_callback(watch)
    attach_balancing(trainer)
    attempt.phase("train")
    watch.begin()
    trainer.train(resume_from_checkpoint=str(found) if found else None)
    attempt.end_if_asked()
    _save(trainer.model, tokenizer, spec, progress, final)


def _model(attempt: Attempt, spec: PostTraining, method: Method, found: Path | None) -> Any:
    """The model to train, with what of it is trained in the journal."""
    base = Path(spec.model.path)
    # transformers resumes by names in memory, and experts that are saved one by one have others: load them here.
    model = method.load(found if found and spec.adaptation == "full" else base, spec)
    if spec.adaptation == "lora":
        model = method.adapters(model, spec, method.task)
    elif not spec.train_router:
        freeze_routers(model)
    adapted = method.describe(model)
    attempt.journal.write("model", trained=adapted.num_trained, parameters=adapted.num_all, modules=adapted.modules)
    return model


def settings(spec: PostTraining, run_dir: Path, device: str, micro_batch_size: int | None = None) -> dict[str, Any]:
    """TRL's settings: nothing is reported anywhere, nothing is saved but what `Watch` asks for."""
    in_memory = micro_batch_size or spec.batch_size
    return {
        "output_dir": str(run_dir / STEPS),
        "max_steps": spec.num_steps,
        "per_device_train_batch_size": in_memory,
        "gradient_accumulation_steps": spec.batch_size // in_memory,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": SCHEDULERS[spec.schedule],
        "warmup_steps": round(spec.warmup_share * spec.num_steps),
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.grad_clip,
        "seed": spec.seed,
        "data_seed": spec.seed,
        "use_cpu": device == "cpu",
        "bf16": spec.precision == "auto" and (device != "cpu" or multiplies_bfloat16()),
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _built(method: Method, job: Job) -> Any:
    """TRL's trainer. What it writes into the model's config, which is saved with the weights, is undone."""
    config = job.model.config.get_text_config()
    kept = {name: getattr(config, name) for name in OWN_CONFIG if hasattr(config, name)}
    trainer = method.build(job)
    trainer.remove_callback(PrinterCallback)
    for name, value in kept.items():
        setattr(config, name, value)
    return trainer


def _initial_digest(model: Any, spec: PostTraining) -> str:
    """Digest of the weights to be trained as `_save` would write them."""
    with tempfile.TemporaryDirectory(prefix="nightsmith-initial-") as scratch:
        write_weights(model, spec, Path(scratch))
        return weights_digest(Path(scratch))


def _save(model: Any, tokenizer: Any, spec: PostTraining, progress: Progress, final: Path) -> None:
    """Write the final model beside its place and rename it there, so that it is whole or absent."""
    aside = final.with_name(f".{final.name}.tmp")
    for leftover in (aside, final):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir()
    write_weights(model, spec, aside)
    tokenizer.save_pretrained(aside)
    progress.keep(aside)
    aside.rename(final)
    flush(final.parent)


def write_weights(model: Any, spec: PostTraining, folder: Path) -> None:
    """Write the trained weights: the whole model, or its adapters with the name of their base."""
    model.save_pretrained(folder)
    if spec.adaptation == "lora":
        write_base(folder, Path(spec.model.path), spec.model.weights_digest)


def _newest(run_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    return next((path for path in checkpoints(run_dir / STEPS) if (path / WHOLE).is_file()), None)
