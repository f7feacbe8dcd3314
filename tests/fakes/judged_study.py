"""A study with jobs, results and verdicts, written through the record and as result files, without training."""

from dataclasses import dataclass

from nightsmith.evals.types import Decision, EvaluateSpec, Evaluation, SuiteSpec, Verdict
from nightsmith.model.presets import PRESETS
from nightsmith.record import budget, studies
from nightsmith.record.budget import Amount, Budget
from nightsmith.record.clock import utc_now
from nightsmith.record.digest import sha256
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows, runfolder
from nightsmith.trainer.jobrows import JobRow, Role
from nightsmith.trainer.journal import JOURNAL, Journal
from nightsmith.trainer.spec import LaunchSpec, PretrainSpec, RunResult, RunSpec, RunStatus

TARGET = {"metric": "bits_per_byte", "op": "<=", "value": -0.15, "relative_to": "baseline"}
HYPOTHESIS = "A higher rate | learns <b>faster</b>."


@dataclass
class JudgedStudy:
    """Writes one study; `value` is dev bits per byte throughout."""

    ws: Workspace
    study: str

    @classmethod
    def started(cls, ws: Workspace, goal: str = "Lower bits per byte by 0.15.") -> "JudgedStudy":
        """A study that was understood and approved."""
        study = studies.create(ws, goal)
        studies.set_spec(ws, study, {"goal": goal, "targets": [TARGET]})
        budget.open_account(ws, study, Budget(max_trials=4))
        return cls(ws, study)

    def baseline(self, *values: float) -> list[str]:
        """Trial 0 and calibration seeds."""
        studies.add_trial(self.ws, self.study, 0, {"move": "seed", "hypothesis": "The baseline.", "change": {}})
        roles: list[Role] = ["baseline", *(["calibration"] * (len(values) - 1))]
        return [
            self.job(f"{role}-{i}", 0, role, value, i)
            for i, (role, value) in enumerate(zip(roles, values, strict=True))
        ]

    def trial(self, number: int, value: float, estimate: float, decision: Decision = Decision.INCONCLUSIVE) -> str:
        """A proposed, trained and screened trial."""
        change = {"learning_rate": 0.003}
        plan = {"move": "hyperparameters", "hypothesis": HYPOTHESIS, "change": change}
        studies.add_trial(self.ws, self.study, number, plan)
        key = self.job(f"trial-{number}", number, "trial", value, 10 + number)
        self.judge(number, screen=verdict("screen", decision, value, estimate))
        return key

    def judge(self, number: int, **verdicts: Verdict) -> None:
        """The judge's words."""
        said = {"screen": None, "confirm": None} | {
            rule: each.model_dump(mode="json") for rule, each in verdicts.items()
        }
        studies.set_verdict(self.ws, self.study, number, said)

    def job(self, step: str, trial: int, role: Role, value: float, seed: int, *, running: bool = False) -> str:
        """One job, ended unless `running`."""
        spec = _sealed_spec() if role == "sealed" else _training_spec(seed)
        key = jobrows.key_of(self.study, step, spec)
        launch = LaunchSpec(argv=("true",), time_limit_s=60, workdir=str(self.ws.run_dir(key)))
        row = JobRow(
            key=key, study=self.study, step=step, trial=trial, role=role, spec=spec, launch=launch, attempt=1,
            created_at=utc_now(), started_at=utc_now(),
        )  # fmt: skip
        with self.ws.write() as db:
            jobrows.put(db, row)
            budget.reserve(db, self.study, key, Amount(trials=int(role == "trial"), wall_s=1))
        journal = Journal(self.ws.run_dir(key) / JOURNAL, 1)
        for done in (1, 2, 3):
            layers = [{"max_vio": 0.5 / done, "dead_experts": 0}, {"max_vio": 2.0, "dead_experts": 3 - done}]
            rate, router = 0.001, layers if role == "trial" else []
            journal.write("step", step=done, loss=5.0 - done, learning_rate=rate, tokens_per_s=None, router=router)
        if not running:
            self.finish(row, result(key, spec, role, value))
        return key

    def finish(self, row: JobRow, ended: RunResult) -> None:
        """The job's end."""
        runfolder.finish(self.ws.run_dir(row.key), row.attempt, ended)
        with self.ws.write() as db:
            jobrows.settle(db, row, ended)
            budget.reconcile(db, row.key, Amount(trials=int(row.role == "trial"), wall_s=20, cpu_s=20, tokens=1000))


def result(key: str, spec: RunSpec, role: str, value: float) -> RunResult:
    """A finished job's result."""
    digest = sha256(f"weights {key}")
    evaluation = Evaluation(
        checkpoint_digest=digest, suite_digest=sha256("suite"), items="items.parquet", items_digest=sha256(key),
        metrics={"bits_per_byte": value, "loss": value * 0.7}, num_items=64, wall_s=2,
    )  # fmt: skip
    return RunResult(
        key=key, spec_digest=spec.digest(), status=RunStatus.FINISHED, checkpoint=f"/runs/{key}/checkpoint-3",
        metrics={} if role == "sealed" else {"train/loss": 2.4, "time/tokens_per_s": 900.0}, checkpoint_digest=digest,
        evaluation=evaluation, num_steps=0 if role == "sealed" else 3, num_tokens=1000, wall_s=20, devices=("cpu:0",),
    )  # fmt: skip


def verdict(rule: str, decision: Decision, value: float, estimate: float) -> Verdict:
    """A judgement with figures."""
    return Verdict.model_validate(
        {
            "decision": decision, "rule": rule, "metric": "bits_per_byte", "value": value, "estimate": estimate,
            "interval": (estimate - 0.1, estimate + 0.1), "p": 0.01, "n": 64, "reason": "within seed noise.",
        }
    )  # fmt: skip


def _training_spec(seed: int) -> PretrainSpec:
    suite = SuiteSpec(data="/data/abc/dev.parquet", data_digest=sha256("dev"), split="dev")
    return PretrainSpec(
        architecture=PRESETS["nano"], data="/data/abc/train.parquet", data_digest=sha256("train"), num_steps=3,
        seed=seed, dev_suite=suite,
    )  # fmt: skip


def _sealed_spec() -> EvaluateSpec:
    suite = SuiteSpec(data="/sealed/abc/fold0.parquet", data_digest=sha256("fold0"), split="sealed")
    return EvaluateSpec(checkpoint="/runs/x/checkpoint-3", checkpoint_digest=sha256("weights"), suite=suite)
