"""Studies as the graph leaves them, written through the real record and as real result files, without training."""

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import Estimate, PredictedEffect, StudyPlan, TrialPlan, Tunable
from nightsmith.evals import seal
from nightsmith.evals.types import Claim, Decision, EvaluateSpec, Evaluation, SuiteSpec, Target, Verdict
from nightsmith.model.presets import PRESETS
from nightsmith.record import budget, events, studies
from nightsmith.record.budget import Amount, Budget
from nightsmith.record.digest import sha256
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools.base import ToolCall
from nightsmith.tools.data.manifest import FileRecord, Manifest, SourceRecord, SplitRecord, StepRecord
from nightsmith.trainer import jobrows, runfolder
from nightsmith.trainer.jobrows import STARTED, JobRow, Role
from nightsmith.trainer.spec import LaunchSpec, PretrainSpec, RunResult, RunStatus

GOAL = (
    "Pre-train a small mixture-of-experts language model from scratch on the Python standard library's source code and "
    "get validation bits per byte at least 0.15 below the baseline; at most 4 trials and 9 minutes."
)
TARGET = Target(metric="bits_per_byte", op="<=", value=-0.15, relative_to="baseline")
DATASET = sha256("a dataset")
BASELINE = 2.9534
SEED_DEVIATION = 0.021


@contextmanager
def workspace_in_memory() -> Iterator[Workspace]:
    """A new workspace where syncing costs nothing, if the machine has such a place: a study is some 70 transactions."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield open_workspace(Path(folder) / ".nightsmith")


@dataclass(frozen=True)
class Idea:
    """A trial to write down: what was proposed and how much it changed the metric."""

    change: dict[str, float | int | str]
    hypothesis: str
    difference: float
    decision: Decision = Decision.INCONCLUSIVE
    status: RunStatus = RunStatus.FINISHED
    reason: str = ""


IDEAS = (
    Idea({"learning_rate": 0.003}, "A higher peak learning rate uses the few steps better.", -0.1846),
    Idea({"schedule": "wsd"}, "Decaying late keeps the rate high for longer.", -0.0312),
    Idea({"weight_decay": 0.9}, "Strong decay regularises the small model.", 0.2417, Decision.REJECTED),
    Idea({"learning_rate": 0.0045, "beta2": 0.98}, "Go further up, with a longer memory.", -0.3127),
)


@dataclass
class StudyFactory:
    """Writes one study after the other into a workspace; the clock moves on by itself."""

    ws: Workspace
    at: datetime = field(default_factory=lambda: datetime(2026, 11, 23, 22, 0, tzinfo=UTC))
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def now(self) -> datetime:
        """The factory's clock: half a second passes at every look."""
        self.at += timedelta(seconds=0.5)
        return self.at

    def created(self, goal: str = GOAL) -> str:
        """A study whose goal was typed, and nothing more."""
        study = studies.create(self.ws, goal, now=self.now)
        events.append(self.ws, study, "study_started", now=self.now)
        return study

    def planned(self, goal: str = GOAL, targets: tuple[Target, ...] = (TARGET,), max_trials: int = 4) -> str:
        """A study that was understood, planned and approved; its data are built."""
        study = self.created(goal)
        limits = Budget(max_trials=max_trials, wall_clock_s=540)
        spec = GoalSpec(goal=goal, methods=("pretrain",), targets=targets, budget=limits)
        studies.set_spec(self.ws, study, spec.model_dump(mode="json"))
        sources = {"/targets/0/value": {"span": [118, 122]}, "/budget/max_trials": {"span": [160, 161]}}
        defaults = dict.fromkeys(("/architecture", "/settings"), "default")
        self._paper(study, "interpretation", {"spec": spec.model_dump(mode="json"), "sources": sources | defaults})
        self.passed(study, "interpreted", 2.1)
        self._paper(study, "plan", plan().model_dump(mode="json"))
        budget.open_account(self.ws, study, limits)
        self.at += timedelta(seconds=1.2)
        events.append(self.ws, study, "approval", data={"by": "operator", "how": "flag"}, now=self.now)
        self._dataset()
        self.passed(study, "data_built", 4.0)
        studies.set_state(self.ws, study, "trials")
        return study

    def proven(self, goal: str = GOAL, ideas: tuple[Idea, ...] = IDEAS) -> str:
        """A study that ran to its end: four trials, the last one confirmed and proven."""
        study = self.planned(goal)
        self.baseline(study)
        for number, idea in enumerate(ideas, start=1):
            self.trial(study, number, idea)
        winner = self.confirmed(study, len(ideas), ideas[-1].difference)
        reference = self.key(study, "baseline-0")
        self.unsealed(study, winner, reference)
        claim = Claim(target=TARGET, estimate=-0.3074, bound=-0.2791, n=96, met=True, proven=True)
        self.ended(
            study,
            "PROVEN",
            reason="the bound meets the target",
            claims=[claim.model_dump(mode="json")],
            winner=len(ideas),
            winner_key=winner,
            reference_key=reference,
            seal={"strength": "policy", "meaning": "policy: jobs receive only the published paths", "opened": True},
        )
        return study

    def baseline(self, study: str, seeds: int = 4) -> None:
        """Trial 0 and the calibration seeds."""
        studies.add_trial(self.ws, study, 0, self._plan({}, "The baseline.").model_dump(mode="json"), now=self.now)
        for seed in range(seeds):
            role: Role = "baseline" if seed == 0 else "calibration"
            self.job(study, f"baseline-{seed}", 0, role, BASELINE + self.rng.gauss(0, SEED_DEVIATION), seed=seed)
        self.passed(study, "planned", 41.0)

    def trial(self, study: str, number: int, idea: Idea) -> str:
        """One proposed and screened trial; returns its job's key."""
        plan_json = self._plan(idea.change, idea.hypothesis).model_dump(mode="json")
        studies.add_trial(self.ws, study, number, plan_json, now=self.now)
        self.passed(study, "trial_proposed", 0.8, trial=number)
        value = BASELINE + idea.difference
        key = self.job(study, f"trial-{number}", number, "trial", value, seed=number, idea=idea)
        screened = verdict(idea, value) if idea.status is RunStatus.FINISHED else unverified(idea)
        self.judge(study, number, screen=screened)
        self.passed(study, "verdict", 27.0, trial=number)
        return key

    def confirmed(self, study: str, number: int, difference: float, decision: Decision = Decision.PROMOTED) -> str:
        """Fresh seeds of a trial; returns the key of the first."""
        keys = [
            self.job(study, f"confirmation-{number}-{seed}", number, "confirmation", BASELINE + difference, seed=seed)
            for seed in range(1001, 1004)
        ]
        told = f"bits_per_byte {difference:+.4g}: better on fresh seeds."
        confirm = Verdict(
            decision=decision, rule="confirm", metric="bits_per_byte", value=BASELINE + difference,
            estimate=difference + 0.004, interval=(difference - 0.034, difference + 0.042), n=128, seeds=(3, 4),
            p=0.0000021, alpha=0.0167, meets_target=True, reason=told,
        )  # fmt: skip
        before = next(row for row in studies.trials(self.ws, study) if row.number == number).verdict
        screen = Verdict.model_validate(before["screen"]) if isinstance(before, dict) else None
        self.judge(study, number, screen=screen, confirm=confirm)
        self.passed(study, "confirmation", 52.0, trial=number)
        return keys[0]

    def unsealed(self, study: str, *of: str) -> None:
        """Evaluations of the given jobs' checkpoints on the sealed fold."""
        seal.take_look(self.ws, [sha256("fold0")], study)
        events.append(self.ws, study, "unsealed", data={"digest": sha256("fold0")[:12], "fold": 0}, now=self.now)
        for key in of:
            self.job(study, f"sealed-{key}", None, "sealed", BASELINE - 0.3)

    def ended(self, study: str, outcome: str, **detail: Any) -> None:
        """The study's outcome."""
        budget.tick(self.ws, study, 187.4)
        self.passed(study, "outcome", 3.0)
        studies.finish(self.ws, study, outcome, detail, now=self.now)

    def refused(self, study: str, reason: str, trial: int | None = None) -> None:
        """Something was refused."""
        events.append(self.ws, study, "refused", trial=trial, data={"reason": reason}, now=self.now)

    def passed(self, study: str, kind: Any, seconds: float, trial: int | None = None) -> None:
        """Some seconds passed, then this happened."""
        self.at += timedelta(seconds=seconds)
        events.append(self.ws, study, kind, trial=trial, now=self.now)

    def judge(self, study: str, number: int, *, screen: Verdict | None, confirm: Verdict | None = None) -> None:
        """What the judge said."""
        said = {
            name: one.model_dump(mode="json") if one else None
            for name, one in (("screen", screen), ("confirm", confirm))
        }
        studies.set_verdict(self.ws, study, number, said)

    def key(self, study: str, step: str) -> str:
        """The key of a step's job."""
        return sha256(f"{study}|{step}")[:12]

    def job(
        self, study: str, step: str, trial: int | None, role: Role, value: float, seed: int | None = None,
        idea: Idea | None = None, *, ended: bool = True,
    ) -> str:  # fmt: skip
        """One job's row, settled reservation and result file."""
        key = self.key(study, step)
        spec = self._sealed_spec() if seed is None else self._training_spec(seed)
        folder, at = self.ws.run_dir(key), self.now()
        launch = LaunchSpec(argv=("worker",), devices=("cpu:0",), time_limit_s=120, workdir=str(folder))
        row = JobRow(key=key, study=study, step=step, trial=trial, role=role, spec=spec, launch=launch, attempt=1,
                     state=STARTED, created_at=at, started_at=at, finished_at=None, result=None)  # fmt: skip
        (folder / "spec.json").write_text(spec.model_dump_json())
        with self.ws.write() as db:
            jobrows.put(db, row)
            budget.reserve(db, study, key, Amount(trials=int(role == "trial")))
        if ended:
            result = self._result(key, spec.digest(), value, idea, trained=seed is not None)
            runfolder.finish(folder, 1, result)
            spent = Amount(wall_s=24.6, cpu_s=24.6, tokens=result.num_tokens, trials=int(role == "trial"))
            with self.ws.write() as db:
                jobrows.settle(db, row, result)
                budget.reconcile(db, key, spent)
        return key

    def _result(self, key: str, spec: str, value: float, idea: Idea | None, *, trained: bool) -> RunResult:
        status = idea.status if idea else RunStatus.FINISHED
        finished = status is RunStatus.FINISHED
        digest = sha256(f"weights {key}")
        evaluation = Evaluation(
            checkpoint_digest=digest,
            suite_digest=sha256("dev" if trained else "sealed"),
            items="items.parquet",
            items_digest=sha256(key),
            metrics={"bits_per_byte": value, "loss": value * 0.6931, "perplexity": 2**value},
            num_items=128 if trained else 96,
            wall_s=2.2,
        )
        return RunResult(
            key=key, spec_digest=spec, status=status, reason=idea.reason if idea else "",
            metrics={"train/loss": value * 0.7} if trained else {}, checkpoint=str(self.ws.runs / key / "final"),
            checkpoint_digest=digest, initial_digest=sha256("initial"), evaluation=evaluation if finished else None,
            num_steps=64 if trained else 0, num_tokens=65536 if trained else 0, wall_s=24.6,
            train_s=17.3 if trained else 0.0, evaluate_s=2.2, peak_memory_gib=0.6, devices=("cpu:0",),
        )  # fmt: skip

    def _training_spec(self, seed: int) -> PretrainSpec:
        data = str(self.ws.data / DATASET[:12] / "train.parquet")
        return PretrainSpec(
            architecture=PRESETS["nano"], data=data, data_digest=sha256("train"), num_steps=64, seed=seed
        )

    def _sealed_spec(self) -> EvaluateSpec:
        fold = str(self.ws.sealed / DATASET[:12] / "fold0.parquet")
        suite = SuiteSpec(data=fold, data_digest=sha256("fold0"), split="sealed", max_items=96)
        return EvaluateSpec(checkpoint="/none", checkpoint_digest=sha256("weights"), suite=suite)

    def _plan(self, change: dict[str, float | int | str], hypothesis: str) -> TrialPlan:
        call = ToolCall(tool="pretrain", args={"preset": "nano", **change})
        expected = PredictedEffect(metric="bits_per_byte", direction="lower") if change else None
        return TrialPlan(
            move="hyperparameters", hypothesis=hypothesis, change=change, calls=(call,), predicted=expected
        )

    def _dataset(self) -> None:
        files = tuple(FileRecord(name=name, data_digest=sha256(name), num_bytes=9000) for name in ("abc.py", "ast.py"))
        source = SourceRecord(ref="the Python standard library's source code", id="python-stdlib", label="stdlib",
                              kind="text", files=files, num_rows=612)  # fmt: skip
        splits = tuple(
            SplitRecord(name=name, path=f"data/{name}", data_digest=sha256(name), rows=rows, num_bytes=rows * 900)
            for name, rows in (("train", 388), ("dev", 128), ("fold0", 96))
        )
        manifest = Manifest(dataset=DATASET, sources=(source,), splits=splits, engine="duckdb 2.0.0",
                            steps=(StepRecord(kind="dedup", sql="SELECT 1", rows_in=620, rows_out=612),))  # fmt: skip
        folder = self.ws.data / DATASET[:12]
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_text(manifest.model_dump_json())

    def _paper(self, study: str, name: str, content: Any) -> Path:
        path = self.ws.study_dir(study) / f"{name}.json"
        path.write_text(json.dumps(content))
        return path


def plan() -> StudyPlan:
    """The plan of every study here."""
    return StudyPlan(
        calls=(
            ToolCall(tool="build_dataset", args={"sources": ["python-stdlib"], "dedup": True, "dev_share": 0.1}),
            ToolCall(tool="pretrain", args={"preset": "nano", "num_steps": 64, "learning_rate": 0.001, "seed": 0}),
        ),
        recipe={"preset": "nano", "num_steps": 64, "learning_rate": 0.001},
        space=(Tunable(name="learning_rate", kind="float", low=1e-4, high=1e-2, log=True),),
        max_trials=4,
        seeds=3,
        parallel=2,
        job_limit_s=120,
        estimate=Estimate(trial_s=25, total_s=300, tokens=720_896, basis="measured on this machine (6 runs)"),
        assumptions=(
            "The model is the `nano` preset: the goal says small, and names no size.",
            "Validation bits per byte is measured on 128 held-out files that no training run reads.",
        ),
    )


def verdict(idea: Idea, value: float) -> Verdict:
    """A screen of one dev run against four seeds."""
    low, high = idea.difference - 0.083, idea.difference + 0.083
    told = {True: "worse, beyond seed noise", False: "within seed noise"}[idea.decision is Decision.REJECTED]
    promising = idea.difference < -0.1
    return Verdict(
        decision=idea.decision, rule="screen", metric="bits_per_byte", value=value, estimate=idea.difference,
        interval=(low, high), n=128, seeds=(1, 4), p=0.001 if promising else 0.4, alpha=0.05, promising=promising,
        meets_target=idea.difference <= -0.15,
        reason="better, beyond seed noise; worth confirming." if promising else f"{told}.",
    )  # fmt: skip


def unverified(idea: Idea) -> Verdict:
    """A trial without evidence."""
    told = f"only a finished job is evidence; it ended {idea.status}."
    return Verdict(decision=Decision.UNVERIFIED, rule="evidence", metric="bits_per_byte", reason=told)
