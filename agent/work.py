"""From a step of the graph to the job that carries it out: data, specs, and whether time is left for another."""

import math
from pathlib import Path
from statistics import median

from pydantic import JsonValue

from nightsmith.agent import dossier
from nightsmith.agent.plan import StudyPlan, TrialPlan
from nightsmith.agent.planning import EVALUATE_S, REPORT_S, START_S
from nightsmith.agent.state import Role, Step
from nightsmith.record import budget, events, leases, studies
from nightsmith.record.leases import DeviceKind
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.manifest import Manifest, read_manifest
from nightsmith.tools.evaluation import Evaluate, evaluate_spec
from nightsmith.tools.training import Pretrain, pretrain_spec
from nightsmith.trainer import jobs
from nightsmith.trainer.spec import PretrainSpec, RunResult, RunSpec, RunStatus

DEV_ITEMS, DEV_BYTES, SEALED_ITEMS, SEALED_BYTES = 192, 4096, 384, 8192
"""Rows scored, and bytes of each: dev is looked at by every run, sealed once."""
START_SLACK_S = 3.0
"""Time passes between asking what is left and reserving it."""


def step_of(role: Role, trial: int, seed: int, checkpoint_of: str = "", fold: int = 0) -> Step:
    """A step, named so that the same step of a resumed study has the same name."""
    name = f"{role}-{trial}-{checkpoint_of or seed}"
    return {"step": name, "trial": trial, "role": role, "seed": seed, "checkpoint_of": checkpoint_of, "fold": fold}


def prepare_data(ws: Workspace, study: str, cwd: Path) -> None:
    """Build the plan's dataset (or find it built) and note its digest in the study's papers."""
    if dossier.load(ws, study, "dataset") is not None:
        return
    call = next(c for c in dossier.study_plan(ws, study).calls if c.tool == "build_dataset")
    args = registry.validate(call)
    assert isinstance(args, BuildDataset)
    manifest = build_dataset(args, ws, cwd=cwd)
    dossier.save(ws, study, "dataset", {"digest": manifest.dataset})
    rows: dict[str, JsonValue] = {split.name: split.rows for split in manifest.splits}
    events.append(ws, study, "data_built", data={"digest": manifest.name, "rows": rows})


def manifest_of(ws: Workspace, study: str) -> Manifest:
    """The manifest of the study's dataset."""
    return read_manifest(ws, dossier.load(ws, study, "dataset")["digest"])


def sealed_folds(manifest: Manifest) -> list[str]:
    """Digests of the sealed folds, in the order in which they are used."""
    return [split.data_digest for split in manifest.splits if split.name.startswith("fold")]


def job_spec(ws: Workspace, study: str, step: Step) -> RunSpec:
    """The spec of one step: a training run of a trial's recipe, or an evaluation of a checkpoint."""
    if not step["checkpoint_of"]:
        return training_spec(ws, study, step["trial"], step["seed"])
    result = finished(ws, step["checkpoint_of"])
    window = int(dossier.study_plan(ws, study).recipe["seq_len"])
    args = Evaluate(
        job=result.key,
        split="sealed",
        fold=step["fold"],
        max_items=SEALED_ITEMS,
        max_bytes=SEALED_BYTES,
        seq_len=window,
    )
    return evaluate_spec(
        args,
        manifest_of(ws, study),
        ws,
        checkpoint=Path(str(result.checkpoint)),
        checkpoint_digest=str(result.checkpoint_digest),
    )


def training_spec(ws: Workspace, study: str, trial: int, seed: int) -> PretrainSpec:
    """The training run of one trial with one seed (counted from the seed that the goal fixed, else 0)."""
    row = next(t for t in studies.trials(ws, study) if t.number == trial)
    call = next(c for c in TrialPlan.model_validate(row.plan).calls if c.tool == "pretrain")
    args = registry.validate(call)
    assert isinstance(args, Pretrain)
    seeded = args.model_copy(update={"seed": args.seed + seed})
    return pretrain_spec(seeded, manifest_of(ws, study), ws, dev_items=DEV_ITEMS, dev_bytes=DEV_BYTES)


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
    return plan.parallel if left >= trial_s + seconds_to_end(plan, trial_s) else 0


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


def measured_trial_s(ws: Workspace, study: str, plan: StudyPlan) -> float:
    """Seconds that a training job takes in this study: the median of those that finished, else the estimate."""
    results = [jobs.poll(ws, row.key) for row in jobs.rows(ws, study) if row.role != "sealed"]
    times = [r.wall_s for r in results if r is not None and r.status is RunStatus.FINISHED]
    return median(times) if times else plan.estimate.trial_s


def seconds_to_end(plan: StudyPlan, trial_s: float) -> float:
    """Seconds kept for one confirmation, the sealed evaluation and the report."""
    rounds = math.ceil(plan.seeds / plan.parallel)
    return rounds * trial_s + START_S + 3 * EVALUATE_S + REPORT_S
