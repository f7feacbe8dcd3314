"""From a step of the graph to the job that carries it out, and whether time is left for another."""

import math
from pathlib import Path
from statistics import median

from nightsmith.agent import dossier, materials
from nightsmith.agent.fitting import REPORT_S
from nightsmith.agent.plan import StudyPlan, TrialPlan
from nightsmith.agent.state import Role, Step
from nightsmith.evals.types import EvaluateSpec
from nightsmith.record import budget, leases, studies
from nightsmith.record.leases import DeviceKind
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.evaluation import evaluate_model_spec
from nightsmith.tools.finetuning import Sft, Tuning, sft_spec
from nightsmith.tools.preference import Dpo, dpo_spec
from nightsmith.tools.reinforcement import Grpo, grpo_spec
from nightsmith.tools.training import Pretrain, pretrain_spec
from nightsmith.trainer import jobrows, jobs
from nightsmith.trainer.launch import warm
from nightsmith.trainer.spec import ModelRef, RunResult, RunSpec, RunStatus, TrainSpec

START_SLACK_S = 3.0
"""Time passes between asking what is left and reserving it."""


def step_of(
    role: Role, trial: int, seed: int, *, checkpoint_of: str = "", fold: int = 0, stage: int = 0, model_of: str = ""
) -> Step:
    """A step, named so that the same step of a resumed study has the same name."""
    name = f"{role}-{trial}-{checkpoint_of or seed}" + (f"-stage{stage}" if model_of else "")
    return {
        "step": name, "trial": trial, "role": role, "seed": seed, "stage": stage, "model_of": model_of,
        "checkpoint_of": checkpoint_of, "fold": fold,
    }  # fmt: skip


def next_stage(ws: Workspace, plan: StudyPlan, key: str, step: Step) -> Step | None:
    """The step that goes on from a finished stage's checkpoint; None where the run has ended, or failed."""
    result = jobs.poll(ws, key)
    if role_of(step, plan) != "stage" or result is None or result.status is not RunStatus.FINISHED:
        return None
    return step_of(step["role"], step["trial"], step["seed"], stage=step["stage"] + 1, model_of=key)


def role_of(step: Step, plan: StudyPlan) -> jobrows.Role:
    """What the job of a step is for: only the last stage of a run stands for it."""
    trains = step["role"] != "sealed" and not _is_reference(step, plan)
    return "stage" if trains and step["stage"] < len(plan.stages) - 1 else step["role"]


def _is_reference(step: Step, plan: StudyPlan) -> bool:
    """Whether the step evaluates the model that is fine-tuned, as it is."""
    return step["role"] == "baseline" and plan.model is not None


def job_spec(ws: Workspace, study: str, step: Step) -> RunSpec:
    """The spec of one step: a stage of a trial's training, or an evaluation of a checkpoint."""
    plan = dossier.study_plan(ws, study)
    if not plan.stages:
        return measured_spec(ws, study, plan, step)
    if step["checkpoint_of"]:
        suite = materials.suite(ws, study, "sealed", step["fold"])
        return evaluate_model_spec(checkpoint(ws, step["checkpoint_of"]), suite)
    if _is_reference(step, plan) and plan.model is not None:
        return evaluate_model_spec(plan.model, materials.suite(ws, study, "dev"))
    return training_spec(ws, study, plan, step)


def measured_spec(ws: Workspace, study: str, plan: StudyPlan, step: Step) -> RunSpec:
    """The evaluation of a model that nobody trains here: trial 0 is what another one is compared with."""
    model = plan.reference if plan.reference and step["trial"] == 0 else plan.model
    assert model is not None, "a plan that measures names a model"
    return evaluate_model_spec(model, materials.measured_suite(ws, study))


def training_spec(ws: Workspace, study: str, plan: StudyPlan, step: Step) -> RunSpec:
    """One stage of a trial with one seed (counted from the seed that the goal fixed, else 0).

    Only the last stage is evaluated, on the suite that all runs of the study share.
    """
    row = next(t for t in studies.trials(ws, study) if t.number == step["trial"])
    args = registry.validate(TrialPlan.model_validate(row.plan).stages[step["stage"]])
    is_last = step["stage"] == len(plan.stages) - 1
    suite = materials.suite(ws, study, "dev") if is_last else None
    if isinstance(args, Tuning):
        start = checkpoint(ws, step["model_of"]) if step["model_of"] else plan.model
        assert start is not None, "a plan that fine-tunes names a model, or trains one before"
        manifest = materials.manifest_of(ws, study, args.dataset)
        seeded = args.model_copy(update={"seed": args.seed + step["seed"]})
        if isinstance(seeded, Dpo):
            return dpo_spec(seeded, manifest, ws, model=start, suite=suite)
        if isinstance(seeded, Grpo):
            return grpo_spec(seeded, manifest, ws, model=start, suite=suite)
        assert isinstance(seeded, Sft)
        return sft_spec(seeded, manifest, ws, model=start, suite=suite)
    assert isinstance(args, Pretrain)
    seeded = args.model_copy(update={"seed": args.seed + step["seed"]})
    spec = pretrain_spec(seeded, materials.manifest_of(ws, study, args.dataset), ws)
    return spec.model_copy(update={"dev_suite": suite})


def checkpoint(ws: Workspace, key: str) -> ModelRef:
    """The weights that a finished job left, or evaluated."""
    result = finished(ws, key)
    assert result.checkpoint is not None
    assert result.checkpoint_digest is not None
    return ModelRef(path=str(Path(result.checkpoint).resolve()), weights_digest=result.checkpoint_digest)


def finished(ws: Workspace, key: str) -> RunResult:
    """The result of a finished job. Raises ValueError for one that is not: callers ask after its end only."""
    result = jobs.poll(ws, key)
    if result is None or result.status is not RunStatus.FINISHED:
        raise ValueError(f"job {key} has not finished: {result.status if result else 'it is running'}")
    return result


def time_for(ws: Workspace, study: str, plan: StudyPlan) -> int:
    """Trials that may start now so that confirmation, unsealing and report still fit into the wall-clock budget."""
    left = seconds_left(ws, study)
    if left is None:
        return plan.parallel
    trial_s = measured_trial_s(ws, study, plan)
    return plan.parallel if left >= trial_s + seconds_to_end(ws, study, plan, trial_s) else 0


def job_limit_s(ws: Workspace, study: str, plan: StudyPlan) -> float:
    """Time limit of a job that is started now: the plan's, and never more than what is left of the wall clock."""
    left = seconds_left(ws, study)
    return plan.job_limit_s if left is None else min(plan.job_limit_s, max(1.0, left - START_SLACK_S))


def seconds_left(ws: Workspace, study: str) -> float | None:
    """Seconds until the wall clock or the deadline of the budget is spent; None without either."""
    left = budget.balance(ws, study).left
    return min((s for s in (left.wall_s, left.deadline_s) if s is not None), default=None)


def device_kind() -> DeviceKind:
    """Accelerators where there are any, else CPU cores."""
    return "cuda" if any(device.startswith("cuda") for device in leases.devices()) else "cpu"


def warm_up() -> None:
    """Let the jobs to come start warm, where they run on CPUs."""
    if device_kind() == "cpu":
        warm.bring_up()


def measured_trial_s(ws: Workspace, study: str, plan: StudyPlan) -> float:
    """Seconds that a run takes in this study, all its stages: medians of those that finished, else the estimate."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for row in jobs.rows(ws, study):
        result = jobs.poll(ws, row.key)
        if isinstance(row.spec, TrainSpec) and result is not None and result.status is RunStatus.FINISHED:
            times[row.role == "stage"].append(result.wall_s)
    if not times[False]:
        return plan.estimate.trial_s
    earlier = (len(plan.stages) - 1) * median(times[True]) if times[True] else 0.0
    return median(times[False]) + earlier


def seconds_to_end(ws: Workspace, study: str, plan: StudyPlan, trial_s: float) -> float:
    """Seconds kept for one confirmation (where the plan has any), the sealed evaluation and the report."""
    rounds = math.ceil(plan.seeds / plan.parallel) if plan.max_confirmations else 0
    return rounds * trial_s + seconds_to_unseal(ws, study, plan)


def seconds_to_unseal(ws: Workspace, study: str, plan: StudyPlan) -> float:
    """Seconds kept for the sealed evaluation and the report; measured by the unmodified model's, where there is one."""
    ended = [jobs.poll(ws, row.key) for row in jobs.rows(ws, study) if isinstance(row.spec, EvaluateSpec)]
    walls = [result.wall_s for result in ended if result is not None and result.status is RunStatus.FINISHED]
    return max([plan.estimate.sealed_s, *(wall * materials.SEALED_PER_DEV for wall in walls)]) + REPORT_S
