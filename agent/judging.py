"""From a study's result files to the judge and back into the record. Gathers evidence; decides nothing itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nightsmith.agent import dossier
from nightsmith.agent.materials import manifest_of
from nightsmith.evals import evidence, judge, seal, stats
from nightsmith.evals.suite import Scored, read_scored
from nightsmith.evals.targets import holds, is_absolute, lower_is_better
from nightsmith.evals.types import Claim, Decision, Evidence, Outcome, Target, Verdict
from nightsmith.model.files import found_digest
from nightsmith.record import studies
from nightsmith.record.digest import file_digest
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.jobs import JobRow
from nightsmith.trainer.spec import PretrainSpec, RunResult, RunStatus, TrainSpec

BASELINE_ROLES = ("baseline", "calibration")


def screen(ws: Workspace, study: str, number: int) -> Verdict:
    """Judge one trial's dev run against the baseline's seeds, and record it."""
    spec, metric = dossier.goal_spec(ws, study), primary_metric(ws, study)
    rows = _rows(ws, study, number, ("trial",))
    verdict = _unfinished(ws, study, number, rows) or _forced(ws, [*_baseline_rows(ws, study), *rows], metric)
    verdict = verdict or judge.screen(
        _scored(ws, rows)[0],
        _baseline(ws, study),
        metric=metric,
        targets=spec.targets,
        guardrails=spec.guardrails,
        fixed=has_fixed_reference(ws, study),
    )
    _save(ws, study, number, screen=verdict)
    return verdict


def confirm(ws: Workspace, study: str, number: int) -> Verdict:
    """Judge the fresh seeds of one trial against the baseline's, at the level that was spent for it."""
    spec, metric = dossier.goal_spec(ws, study), primary_metric(ws, study)
    rows = _rows(ws, study, number, ("confirmation",))
    right = confirmation_right(ws, study, number)
    screened = [result.checkpoint_digest or "" for result in _results(ws, _rows(ws, study, number, ("trial",)))]
    verdict = _unfinished(ws, study, number, rows) or _forced(ws, [*_baseline_rows(ws, study), *rows], metric)
    verdict = verdict or judge.confirm(
        _scored(ws, rows),
        _baseline(ws, study),
        metric=metric,
        alpha=right.alpha,
        screened=screened,
        targets=spec.targets,
        guardrails=spec.guardrails,
        fixed=has_fixed_reference(ws, study),
    )
    _save(ws, study, number, confirm=verdict)
    return verdict


def confirmation_right(ws: Workspace, study: str, number: int) -> seal.Confirmation:
    """The right to confirm one trial on the study's dev split. Raises Refused when the study used its share."""
    limit = dossier.study_plan(ws, study).max_confirmations
    return seal.take_confirmation(
        ws, manifest_of(ws, study).split("dev").data_digest, study, f"confirmation-{number}", limit=limit
    )


def unverified(ws: Workspace, study: str, number: int, reason: str) -> Verdict:
    """Record that a trial never became evidence."""
    metric = primary_metric(ws, study)
    verdict = Verdict(decision=Decision.UNVERIFIED, rule="evidence", metric=metric, reason=reason)
    _save(ws, study, number, screen=verdict)
    return verdict


def has_fixed_reference(ws: Workspace, study: str) -> bool:
    """Whether the baseline is a model as it is, and no recipe that was trained with several seeds."""
    return dossier.study_plan(ws, study).model is not None


def noise(ws: Workspace, study: str) -> dict[str, Any]:
    """The calibration's outcome: mean and deviation of the baseline's metric over its seeds, where it has any."""
    metric = primary_metric(ws, study)
    values = [stats.value(run.items, metric) for run in _baseline(ws, study)]
    if has_fixed_reference(ws, study):
        return {"metric": metric, "mean": values[0], "fixed": True}
    deviation = float(np.std(values, ddof=1))
    return {"metric": metric, "mean": float(np.mean(values)), "seed_deviation": deviation, "seeds": len(values)}


def failure(ws: Workspace, study: str) -> str:
    """Why the baseline's runs are no evidence; empty where they are."""
    rows = _baseline_rows(ws, study)
    forced = _unfinished(ws, study, 0, rows) or _forced(ws, rows, primary_metric(ws, study))
    return forced.reason if forced else ""


def best_promising(ws: Workspace, study: str, confirmed: Sequence[int]) -> int | None:
    """The trial with the best screened estimate that is promising and had no confirmation yet."""
    found = [
        (verdict.estimate, row.number)
        for row in studies.trials(ws, study)
        if row.number not in confirmed and (verdict := verdict_of(row, "screen")) and verdict.promising
    ]
    return _best(ws, study, [(value, number) for value, number in found if value is not None])


def best_promoted(ws: Workspace, study: str) -> int | None:
    """The promoted trial with the best confirmed estimate."""
    found = [
        (verdict.estimate, row.number)
        for row in studies.trials(ws, study)
        if (verdict := verdict_of(row, "confirm")) and verdict.decision is Decision.PROMOTED
    ]
    return _best(ws, study, [(value, number) for value, number in found if value is not None])


def meeting_targets(ws: Workspace, study: str) -> int | None:
    """The best trial that meets every target on dev and was not rejected; 0 where only the baseline does, or None."""
    found: list[tuple[float, int]] = []
    for row in studies.trials(ws, study):
        verdict = verdict_of(row, "confirm") or verdict_of(row, "screen")
        good = verdict is not None and verdict.meets_target and verdict.decision is not Decision.REJECTED
        if good and verdict is not None and verdict.value is not None:
            found.append((verdict.value, row.number))
    return _best(ws, study, found) if found else (0 if _baseline_meets(ws, study) else None)


def _baseline_meets(ws: Workspace, study: str) -> bool:
    """Whether every target is absolute and holds on the mean of the baseline's seeds."""
    targets, runs = dossier.goal_spec(ws, study).targets, _baseline(ws, study)
    if not runs or not all(is_absolute(target) for target in targets):
        return False
    means = [float(np.mean([stats.value(run.items, target.metric) for run in runs])) for target in targets]
    return all(holds(target, mean) for target, mean in zip(targets, means, strict=True))


def best_seed(ws: Workspace, study: str, number: int) -> str:
    """Key of a trial's best run by dev score: each side of the sealed comparison is chosen alike."""
    roles = BASELINE_ROLES if number == 0 else ("confirmation",)
    metric = primary_metric(ws, study)
    results = _results(ws, _rows(ws, study, number, roles) or _rows(ws, study, number, ("trial",)))
    finished = [r for r in results if r.status is RunStatus.FINISHED and r.evaluation is not None]
    sign = 1 if is_lower_better(ws, study) else -1
    return min(finished, key=lambda r: sign * r.evaluation.metrics[metric] if r.evaluation else 0.0).key


def dead_experts(ws: Workspace, study: str, number: int) -> int:
    """Experts, of all layers, that no token chose at the end of a trial's run; 0 where that was not measured."""
    results = _results(ws, _rows(ws, study, number, ("trial",)))
    return int(max((result.metrics.get("router/dead_experts", 0.0) for result in results), default=0.0))


def outcome(ws: Workspace, study: str, winner: int | None, ended: str) -> tuple[Outcome, dict[str, Any]]:
    """Claims on the sealed split (if it was opened), the outcome, and the particulars for the report."""
    spec = dossier.goal_spec(ws, study)
    promoted = best_promoted(ws, study)
    made = claims(ws, study, winner)
    found = judge.outcome(made, promoted=promoted is not None, targets=spec.targets)
    if found is Outcome.NOT_MET and not made and not _judged(ws, study):
        found = Outcome.STOPPED
    told = _reason(found, made, threshold=has_threshold(ws, study))
    if winner is not None and not made:
        told = "The sealed evaluation did not finish; the target is undecided."
    detail: dict[str, Any] = {
        "reason": ended or told,
        "claims": [claim.model_dump(mode="json") for claim in made],
        "winner": winner if winner is not None else promoted,
        "seal": {"strength": seal.STRENGTH, "meaning": seal.STRENGTH_MEANING, "opened": bool(made)},
    }
    if made and winner is not None:
        detail |= {"winner_key": best_seed(ws, study, winner), "reference_key": best_seed(ws, study, 0)}
    return found, detail


def measured(ws: Workspace, study: str, number: int) -> Scored | str:
    """The scores of a model that nobody trained here, or why they are no evidence."""
    rows = _rows(ws, study, number, ("measured", "sealed"))
    forced = _unfinished(ws, study, number, rows) or _forced(ws, rows, primary_metric(ws, study))
    return forced.reason if forced else _scored(ws, rows)[0]


def claims(ws: Workspace, study: str, winner: int | None) -> list[Claim]:
    """What the sealed split shows of each target, for one trial against trial 0; none where it was not opened."""
    if winner is None:
        return []
    sides = [_sealed(ws, study, winner), _sealed(ws, study, 0)]
    if not sides[0]:
        return []
    reference = sides[1][0] if sides[1] else None
    made = (_claim(sides[0][0], reference, target) for target in dossier.goal_spec(ws, study).targets)
    return [claim for claim in made if claim is not None]


def _claim(candidate: Scored, reference: Scored | None, target: Target) -> Claim | None:
    """The claim, or None where the items do not decide it: a target without a claim is not met."""
    try:
        return judge.claim(candidate, reference, target)
    except judge.NotComparable:
        return None


def _judged(ws: Workspace, study: str) -> bool:
    """Whether any trial was really judged: a run that is no evidence decides nothing."""
    verdicts = [verdict_of(row, rule) for row in studies.trials(ws, study) for rule in ("screen", "confirm")]
    return any(verdict is not None and verdict.decision is not Decision.UNVERIFIED for verdict in verdicts)


def _sealed(ws: Workspace, study: str, number: int) -> list[Scored]:
    rows = _rows(ws, study, number, ("sealed",))
    return _scored(ws, rows) if rows and _forced(ws, rows, primary_metric(ws, study)) is None else []


def _reason(outcome_: Outcome, claims: Sequence[Claim], *, threshold: bool) -> str:
    missed = " and the target was not reached" if threshold else ""
    match outcome_:
        case Outcome.PROVEN:
            return "The one-sided 95 % bound on the sealed split meets every target."
        case Outcome.MET:
            return "The estimate on the sealed split meets every target; its 95 % bound does not."
        case Outcome.IMPROVED:
            return f"A change was promoted on fresh seeds{missed}."
        case _:
            opened = "The sealed split was opened." if claims else "The sealed split was not opened."
            return f"No change was promoted{missed}. {opened}"


def primary_metric(ws: Workspace, study: str) -> Any:
    """Metric that trials are compared by: the first target's, else bits per byte."""
    targets = dossier.goal_spec(ws, study).targets
    return targets[0].metric if targets else "bits_per_byte"


def is_lower_better(ws: Workspace, study: str) -> bool:
    """Direction of the primary metric."""
    return lower_is_better(primary_metric(ws, study), dossier.goal_spec(ws, study).targets)


def has_threshold(ws: Workspace, study: str) -> bool:
    """Whether some target names a threshold (an open-ended goal uses its whole budget)."""
    return any(target.value is not None for target in dossier.goal_spec(ws, study).targets)


def verdict_of(row: studies.TrialRow, rule: str) -> Verdict | None:
    """A trial's verdict by one rule, if it has one."""
    stored: Any = row.verdict
    return Verdict.model_validate(stored[rule]) if stored and stored.get(rule) else None


def _best(ws: Workspace, study: str, found: list[tuple[float, int]]) -> int | None:
    if not found:
        return None
    return (min if is_lower_better(ws, study) else max)(found)[1]


def _save(ws: Workspace, study: str, number: int, **verdicts: Verdict) -> None:
    stored: Any = next(row.verdict for row in studies.trials(ws, study) if row.number == number) or {}
    dumped = {rule: verdict.model_dump(mode="json") for rule, verdict in verdicts.items()}
    studies.set_verdict(ws, study, number, {"screen": None, "confirm": None} | stored | dumped)


def _rows(ws: Workspace, study: str, number: int, roles: Sequence[str]) -> list[JobRow]:
    return [row for row in jobs.rows(ws, study) if row.trial == number and row.role in roles]


def _results(ws: Workspace, rows: Sequence[JobRow]) -> list[RunResult]:
    found = (jobs.poll(ws, row.key) for row in rows)
    return [result for result in found if result is not None]


def _baseline_rows(ws: Workspace, study: str) -> list[JobRow]:
    return _rows(ws, study, 0, BASELINE_ROLES)


def _baseline(ws: Workspace, study: str) -> list[Scored]:
    return _scored(ws, _baseline_rows(ws, study))


def _scored(ws: Workspace, rows: Sequence[JobRow]) -> list[Scored]:
    return [read_scored(ws.run_dir(r.key), r.evaluation) for r in _results(ws, rows) if r.evaluation is not None]


def _unfinished(ws: Workspace, study: str, number: int, rows: Sequence[JobRow]) -> Verdict | None:
    """The verdict on a trial of which no last stage was started; None where there is one to be judged."""
    if rows:
        return None
    failed = (result for result in _results(ws, _rows(ws, study, number, ("stage",))) if result.reason)
    why = next((f"Job {r.key}, an earlier stage, ended {r.status.value}: {r.reason}" for r in failed), "")
    metric = primary_metric(ws, study)
    return Verdict(
        decision=Decision.UNVERIFIED, rule="evidence", metric=metric, reason=why or "Its job was never started."
    )


def _forced(ws: Workspace, rows: Sequence[JobRow], metric: Any) -> Verdict | None:
    """The verdict that missing or changed evidence forces on these runs."""
    verdicts = (evidence.verify(_evidence(ws, row), metric) for row in rows)
    return next((verdict for verdict in verdicts if verdict), None)


def _evidence(ws: Workspace, row: JobRow) -> Evidence:
    """What the judge asks of one job; every `found` digest is computed from disk now."""
    result = jobs.poll(ws, row.key)
    spec = row.spec
    suite = spec.dev_suite if isinstance(spec, TrainSpec) else spec.suite
    assert suite is not None, "studies evaluate every training run"
    status = result.status.value if result else "RUNNING"
    if result is None:
        return Evidence(key=row.key, status=status, suite=suite)
    evaluation = result.evaluation
    trained = isinstance(spec, TrainSpec)
    folder = result.checkpoint if isinstance(spec, TrainSpec) else spec.checkpoint
    return Evidence(
        key=row.key,
        status=f"{status}: {result.reason}" if result.reason else status,
        trained=trained,
        suite=suite,
        data_found=_digest(Path(suite.data)),
        evaluation=evaluation,
        items_found=_digest(ws.run_dir(row.key) / evaluation.items) if evaluation else None,
        checkpoint_digest=result.checkpoint_digest,
        checkpoint_found=found_digest(Path(folder)) if folder else None,
        initial_digest=result.initial_digest,
        num_tokens=result.num_tokens,
        train_s=result.train_s,
        flops_per_token=evidence.flops_per_token(spec.architecture) if isinstance(spec, PretrainSpec) else 0.0,
        devices=result.devices,
    )


def _digest(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None
