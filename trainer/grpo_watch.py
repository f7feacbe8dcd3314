"""The monitors in a running job: asked after each step; an alarm ends the job, and its evidence stays."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from nightsmith.model.files import weights_digest
from nightsmith.model.health import StepUse
from nightsmith.trainer import trl_job
from nightsmith.trainer.attempt import Ended
from nightsmith.trainer.grpo_rewards import Rewarding
from nightsmith.trainer.halted import EVIDENCE, HALTED, mark
from nightsmith.trainer.monitors import DEAD, Alarm, Figures, check
from nightsmith.trainer.runfolder import write_atomic
from nightsmith.trainer.spec import RunStatus

USED = "router/used"
"""Entry of the trainer's log."""


class MonitorWatch(TrainerCallback):
    """Asks the monitors after each step. The history is the trainer's own log, which its checkpoints hold."""

    def __init__(self, job: trl_job.Job, rewarding: Rewarding) -> None:
        """`rewarding` has the answers that become evidence."""
        self._job, self._rewarding, self._use = job, rewarding, StepUse()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Raises Ended at an alarm."""
        if "loss" not in (logs or {}):
            return
        self._note_experts(state.log_history, kwargs["model"])
        history = [_figures(entry) for entry in state.log_history if "loss" in entry]
        alarm = check(history, self._job.spec.monitors)
        if alarm is not None:
            self._halt(alarm, history, kwargs["model"], state.global_step)

    def _note_experts(self, log: list[dict[str, Any]], model: Any) -> None:
        """Which experts the step used, as text of bits, and the share that none of the last `window` steps did."""
        if used := self._use.take(model):
            log[-1][USED] = "".join("1" if each else "0" for each in used)
        lately = [entry[USED] for entry in log if USED in entry][-self._job.spec.monitors.window :]
        if used and len(lately) == self._job.spec.monitors.window:
            log[-1][DEAD] = sum("1" not in bits for bits in zip(*lately, strict=True)) / len(used)

    def _halt(self, alarm: Alarm, history: Sequence[Figures], model: Any, step: int) -> None:
        """Keep figures, answers and weights, the latter marked; then end the job."""
        attempt = self._job.attempt
        folder = attempt.run_dir / EVIDENCE
        folder.mkdir(exist_ok=True)
        write_atomic(
            folder / "alarm.json", json.dumps({"monitor": alarm.monitor, "reason": alarm.reason, "step": step})
        )
        write_atomic(folder / "figures.jsonl", _lines(history))
        write_atomic(folder / "completions.jsonl", _lines(self._rewarding.latest))
        write_atomic(folder / "failures.txt", "\n".join(self._rewarding.failures))
        attempt.facts.num_steps = step
        attempt.facts.checkpoint = self._keep_weights(alarm, model)
        attempt.facts.checkpoint_digest = weights_digest(attempt.facts.checkpoint)
        shutil.rmtree(attempt.run_dir / trl_job.STEPS, ignore_errors=True)
        raise Ended(
            RunStatus.HALTED,
            f"Stopped by the monitor {alarm.monitor} at step {step}: {alarm.reason} Evidence: {folder}.",
        )

    def _keep_weights(self, alarm: Alarm, model: Any) -> Path:
        folder = self._job.attempt.run_dir / HALTED
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        mark(folder, alarm.monitor, alarm.reason)
        trl_job.write_weights(model, self._job.spec, folder)
        self._job.tokenizer.save_pretrained(folder)
        return folder


def _figures(entry: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in entry.items() if isinstance(value, int | float)}


def _lines(values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)
