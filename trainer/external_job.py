"""One job by an external trainer: rows, recipe, the trainer's run, its weights as our checkpoint, our evaluation.

The trainer is a child process on a leash; what it logs becomes the job's journal. Killed, stopped or out of time, the
job goes on from the trainer's newest whole checkpoint. Nothing is bit-exact here: what a trainer computes is its own.
"""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.subject import subject
from nightsmith.model.files import found_digest, weights_digest
from nightsmith.model.load import load, load_tokenizer
from nightsmith.model.lora import write_base
from nightsmith.record.errors import Damaged, NightsmithError
from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.device import set_up_torch
from nightsmith.trainer.evaluate import evaluate_model
from nightsmith.trainer.external import gpus, rows
from nightsmith.trainer.external.follow import Follower, Tally
from nightsmith.trainer.external.process import (
    POLL_S,
    STDERR,
    STDOUT,
    Child,
    Tail,
    environment,
    find,
    installed_version,
    last_error,
)
from nightsmith.trainer.external.publish import publish
from nightsmith.trainer.external.recipe import RECIPE, Recipe, Renderable, Request
from nightsmith.trainer.external.render import request_of, require_renderable
from nightsmith.trainer.external.staging import BASE, stage
from nightsmith.trainer.external.tool import Tool
from nightsmith.trainer.external.tools import TOOLS
from nightsmith.trainer.post_training import PostTraining
from nightsmith.trainer.preference_rows import preference_rows
from nightsmith.trainer.sft_rows import training_rows
from nightsmith.trainer.spec import RunStatus

MODEL, WHOLE = "model", "whole.json"
"""Folder of the final model; the file that is written last into it."""
SAVE_WAIT_S = {RunStatus.STOPPED: 20.0, RunStatus.TIMED_OUT: 6.0}
"""Seconds that a trainer gets for a last checkpoint; after its time limit a job is cut off before long."""
END_WAIT_S = 2.0
OUT_OF_MEMORY, DISK_FULL = ("out of memory", "OutOfMemoryError"), ("No space left on device", "Disk quota exceeded")


def run(attempt: Attempt, spec: PostTraining) -> None:
    """Train to the end of the spec, or go on from the trainer's newest checkpoint, then evaluate.

    Raises:
        Ended: asked to end, the trainer failed or hangs, or its loss is not finite.
        NightsmithError: the trainer is not installed, cannot express the spec, or left unusable weights.
    """
    tool, known = TOOLS[spec.backend], require_renderable(spec)
    final = attempt.run_dir / MODEL
    if not (final / WHOLE).is_file():
        _train(attempt, tool, known, final)
    _take_facts(attempt, known, final)
    if spec.dev_suite is not None:
        evaluate_model(attempt, load(final).to(set_up_torch(attempt)), spec.dev_suite)


def _train(attempt: Attempt, tool: Tool, spec: Renderable, final: Path) -> None:
    executable = find(tool.executable, tool.package, tool.version)
    base = Path(spec.model.path)
    attempt.phase("data")
    if found_digest(base) != spec.model.weights_digest:
        raise Damaged(f"The weights of {base} are not those that the spec names; they were changed. Plan the run anew.")
    model = subject(str(base), cwd=attempt.run_dir)
    request = request_of(spec, model, gpus.site_of(attempt.devices), attempt.run_dir)
    recipe = tool.recipe(request)
    row_tokens = _write_inputs(attempt, tool, request, recipe)
    attempt.phase("build")
    attempt.journal.write(
        "trainer", name=tool.name, executable=str(executable), version=installed_version(executable, tool.package),
        written_for=tool.version, argv=recipe.argv, plan=request.layout.plan.model_dump(),
        micro_batch=request.layout.micro_batch, accumulation=request.layout.accumulation,
    )  # fmt: skip
    tool.tidy(request.output)
    newest = next(iter(tool.saved(request.output)), None)
    follower = Follower(attempt, spec, newest.step if newest else 0, row_tokens)
    if newest is None or newest.step < spec.num_steps:
        _run_tool(attempt, tool, request, recipe, executable, follower)
    _publish(attempt, tool, request, follower, model.shape, final)


def _write_inputs(attempt: Attempt, tool: Tool, request: Request, recipe: Recipe) -> float:
    """Rows, model and recipe, as the trainer reads them. Returns the mean number of tokens of a row."""
    spec = request.spec
    tokenizer = load_tokenizer(Path(spec.model.path))
    if spec.kind == "dpo":
        made = preference_rows(spec.data, spec.data_digest, spec.max_len, tokenizer)
        rows.write_pairs(made, tokenizer, request.rows)
        lengths = [2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in made.pairs]
    else:
        made = training_rows(spec, tokenizer)
        rows.write(made, request.rows, shifted=tool.shifted)
        lengths = [len(ids) for ids in made.ids]
    if len(lengths) < request.layout.plan.fsdp:
        raise NightsmithError(
            f"There are {len(lengths)} rows for {request.layout.plan.fsdp} ranks that see different ones. Use more "
            "rows or fewer GPUs."
        )
    attempt.facts.metrics.update(made.metrics())
    stage(Path(spec.model.path), attempt.run_dir)
    (request.folder / RECIPE).write_text(recipe.text())
    return fmean(lengths)


def _run_tool(
    attempt: Attempt, tool: Tool, request: Request, recipe: Recipe, executable: Path, follower: Follower
) -> None:
    """Run the trainer to its end. Raises Ended where it does not come to one of its own."""
    folder = attempt.run_dir
    tail = Tail(folder / STDOUT, folder / STDERR)
    env = environment(executable, recipe.env, folder / "cache")
    child = Child([str(executable), *recipe.argv[1:]], folder, env)
    attempt.phase("train")
    try:
        code = _watch(attempt, tool, request, child, tail, follower)
    finally:
        child.kill()
    if code:
        raise _failure(tool, code, folder)
    if follower.step < request.spec.num_steps:
        raise Ended(
            RunStatus.FAILED,
            f"{tool.name} left after step {follower.step} of {request.spec.num_steps} without an error. Its output is "
            f"in {STDOUT} and {STDERR}.",
        )


def _watch(attempt: Attempt, tool: Tool, request: Request, child: Child, tail: Tail, follower: Follower) -> int:
    """Follow the trainer. Returns its exit status; raises Ended where the job has to end before it."""
    save_at = time.monotonic() + request.spec.checkpoint_every_s
    while True:
        code = child.poll()
        _take(tool, tail, follower)
        if code is not None:
            return code
        if (status := attempt.ending()) is not None:
            _end(tool, request, child, follower, status)
            _take(tool, tail, follower)
            raise _ended(tool, request, follower, status)
        if (hang := follower.hangs()) is not None:
            raise Ended(RunStatus.FAILED, f"{tool.name} hangs. {hang} It was ended; see {STDOUT} and {STDERR}.")
        if time.monotonic() >= save_at and follower.step:
            tool.ask_to_save(request.output, child)
            save_at = time.monotonic() + request.spec.checkpoint_every_s
        time.sleep(POLL_S)


def _take(tool: Tool, tail: Tail, follower: Follower) -> None:
    """Take in what the trainer has logged since the last time."""
    for line in tail.lines():
        if (step := tool.read(line)) is not None:
            follower.take(step)


def _end(tool: Tool, request: Request, child: Child, follower: Follower, status: RunStatus) -> None:
    """End a running trainer, with a last checkpoint if it can write one in time."""
    before, until = tool.saved(request.output), time.monotonic() + SAVE_WAIT_S[status]
    if tool.ends_by_signal:
        child.terminate()
        child.wait(until - time.monotonic())
    elif follower.step and tool.ask_to_save(request.output, child):
        while tool.saved(request.output) == before and child.poll() is None and time.monotonic() < until:
            time.sleep(POLL_S)
    child.terminate()
    child.wait(END_WAIT_S)
    child.kill()


def _ended(tool: Tool, request: Request, follower: Follower, status: RunStatus) -> Ended:
    step = next((each.step for each in tool.saved(request.output)), 0)
    return Ended(status, f"Ended at step {follower.step}; starting it again goes on from step {step}.")


def _failure(tool: Tool, code: int, folder: Path) -> Ended:
    error = last_error(folder / STDOUT, folder / STDERR)
    status = RunStatus.FAILED
    if any(words in error for words in OUT_OF_MEMORY):
        status = RunStatus.OUT_OF_MEMORY
    elif any(words in error for words in DISK_FULL):
        status = RunStatus.DISK_FULL
    how = f"was ended by signal {code - 128}" if code > 128 else f"failed with exit status {code}"
    return Ended(status, f"{tool.name} {how}. Its last lines: {error}\nAll of it is in {STDOUT} and {STDERR}.")


def _publish(
    attempt: Attempt, tool: Tool, request: Request, follower: Follower, shape: ModelShape, final: Path
) -> None:
    """Make the trainer's weights the job's checkpoint, and clear away what only it needed."""
    found = tool.final(request.output, request.spec)
    if found is None:
        raise NightsmithError(
            f"{tool.name} ended without an error, but left no trained model in {request.output}. It is another version "
            f"than {tool.version}, for which the recipe was written, or its disk was full."
        )

    def mark(folder: Path, changed: bool) -> None:
        if request.spec.adaptation != "full":
            write_base(folder, Path(request.spec.model.path), request.spec.model.weights_digest)
        kept = asdict(follower.tally) | {
            "initial_digest": request.spec.model.weights_digest if changed else weights_digest(folder),
            "num_tokens": attempt.facts.num_tokens,
            "metrics": attempt.facts.metrics,
        }
        (folder / WHOLE).write_text(json.dumps(kept))

    publish(found, final, request.spec, shape, mark)
    for leftover in (request.output, request.folder / BASE, request.folder / "prepared", request.folder / "cache"):
        shutil.rmtree(leftover, ignore_errors=True)


def _take_facts(attempt: Attempt, spec: Renderable, final: Path) -> None:
    kept = json.loads((final / WHOLE).read_text())
    tally = Tally(kept["losses"], kept["train_s"], kept["series"])
    facts = attempt.facts
    facts.metrics.update(kept["metrics"])
    facts.initial_digest, facts.num_tokens = kept["initial_digest"], kept["num_tokens"]
    facts.num_steps, facts.train_s = spec.num_steps, tally.train_s
    facts.checkpoint, facts.checkpoint_digest = final, weights_digest(final)
