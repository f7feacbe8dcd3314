"""From a step of the graph to the job that carries it out: data, specs, and whether time is left for another."""

import math
from pathlib import Path
from statistics import median

from nightsmith.agent import dossier
from nightsmith.agent.plan import StudyPlan, TrialPlan
from nightsmith.agent.planning import EVALUATE_S, REPORT_S, START_S
from nightsmith.agent.state import Step
from nightsmith.evals.types import EvaluateSpec
from nightsmith.record import budget, events, studies
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.data.build import build_dataset, load_manifest
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.evaluation import Evaluate, evaluate_spec
from nightsmith.tools.training import Pretrain, pretrain_spec
from nightsmith.trainer import jobs
from nightsmith.trainer.spec import PretrainSpec, RunResult, RunSpec, RunStatus


def step_of(role: str, trial: int, seed: int, checkpoint_of: str = "") -> Step:
    """A step, named so that the same step of a resumed study has the same name."""
    name = f"{role}-{trial}-{checkpoint_of or seed}"
    return {"step": name, "trial": trial, "role": role, "seed": seed, "checkpoint_of": checkpoint_of}  # pyright: ignore


def prepare_data(ws: Workspace, study: str, cwd: Path) -> None:
    """Build the plan's dataset (or find it built) and note its digest in the study's papers."""
    if dossier.load(ws, study, "dataset") is not None:
        return
    call = next(c for c in dossier.study_plan(ws, study).calls if c.tool == "build_dataset")
    manifest = build_dataset(registry.validate(call), ws, cwd=cwd)  # pyright: ignore[reportArgumentType]
    dossier.save(ws, study, "dataset", {"digest": manifest.digest()})
    splits = {split.name: split.rows for split in manifest.splits}
    events.append(ws, study, "data_built", data={"digest": manifest.digest()[:12], "rows": splits})


def manifest_of(ws: Workspace, study: str) -> Manifest:
    """The manifest of the study's dataset."""
    return load_manifest(ws, dossier.load(ws, study, "dataset")["digest"])


def job_spec(ws: Workspace, study: str, step: Step) -> RunSpec:
    """The spec of one step: a training run of a trial's recipe, or an evaluation of a checkpoint."""
    manifest = manifest_of(ws, study)
    if step["checkpoint_of"]:
        result = finished(ws, step["checkpoint_of"])
        args = Evaluate(checkpoint=str(result.checkpoint), split="sealed")
        return evaluate_spec(args, manifest, checkpoint_digest=str(result.checkpoint_digest))
    return training_spec(ws, study, step["trial"], step["seed"])


def training_spec(ws: Workspace, study: str, trial: int, seed: int) -> PretrainSpec:
    """The training run of one trial with one seed (counted from the seed that the goal fixed, else 0)."""
    row = next(t for t in studies.trials(ws, study) if t.number == trial)
    call = next(c for c in TrialPlan.model_validate(row.plan).calls if c.tool == "pretrain")
    args = Pretrain.model_validate(call.args | {"seed": int(call.args.get("seed", 0)) + seed})
    return pretrain_spec(args, manifest_of(ws, study))


def finished(ws: Workspace, key: str) -> RunResult:
    """The result of a finished job. Raises ValueError for one that is not: callers ask after its end only."""
    result = jobs.poll(ws, key)
    if result is None or result.status is not RunStatus.FINISHED:
        raise ValueError(f"job {key} has not finished: {result.status if result else 'it is running'}")
    return result


def evaluation_job(spec: RunSpec) -> bool:
    """Whether a job evaluates only."""
    return isinstance(spec, EvaluateSpec)


def time_for(ws: Workspace, study: str, plan: StudyPlan) -> int:
    """Trials that may start now so that confirmation, unsealing and report still fit into the wall-clock budget."""
    left = budget.balance(ws, study).left.wall_s
    if left is None:
        return plan.parallel
    trial_s = measured_trial_s(ws, study, plan)
    return plan.parallel if left >= trial_s + seconds_to_end(plan, trial_s) else 0


def measured_trial_s(ws: Workspace, study: str, plan: StudyPlan) -> float:
    """Seconds that a training job takes in this study: the median of those that finished, else the estimate."""
    results = [jobs.poll(ws, row.key) for row in jobs.rows(ws, study) if row.role != "sealed"]
    times = [r.wall_s for r in results if r is not None and r.status is RunStatus.FINISHED]
    return median(times) if times else plan.estimate.trial_s


def seconds_to_end(plan: StudyPlan, trial_s: float) -> float:
    """Seconds kept for one confirmation, the sealed evaluation and the report."""
    rounds = math.ceil(plan.seeds / plan.parallel)
    return rounds * trial_s + START_S + 3 * EVALUATE_S + REPORT_S
