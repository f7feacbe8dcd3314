"""A study as it is read: what console, report and planner see of the record. Data only; `history` fills it in."""

from pydantic import AwareDatetime, JsonValue, computed_field

from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import StudyPlan, TrialPlan
from nightsmith.agent.side_view import Measurement, SideBySide
from nightsmith.agent.standing import Standing
from nightsmith.evals.types import Claim, Decision, MetricName, Outcome, Verdict
from nightsmith.record.budget import Amount, Budget
from nightsmith.record.digest import Contract
from nightsmith.tools.data.manifest import SplitRecord


class JobView(Contract):
    """One job of a study and the figures of its result file."""

    key: str
    """The job's key."""
    role: str
    """baseline, calibration, trial, confirmation, sealed, or stage: an earlier one of such a run."""
    method: str = ""
    """What kind of job it is: pretrain, sft, dpo, grpo, evaluate, …"""
    trial: int | None = None
    """Trial number."""
    status: str
    """How it ended (RunStatus); RUNNING while it has no result, UNREADABLE where that was damaged."""
    ended: bool
    """Whether it has a result."""
    reason: str = ""
    """What went wrong; empty when finished."""
    seed: int | None = None
    """Seed of a training job."""
    metrics: dict[str, float] = {}
    """Training figures, e.g. `train/loss`."""
    scores: dict[str, float] = {}
    """Canonical metric -> value of its evaluation."""
    num_items: int = 0
    """Items evaluated."""
    suite_digest: str | None = None
    """Suite of its evaluation."""
    num_tokens: int = 0
    """Tokens trained on."""
    wall_s: float = 0
    """Seconds from start to exit record."""
    train_s: float = 0
    """Seconds in training steps."""
    evaluate_s: float = 0
    """Seconds in evaluation."""
    cpu_s: float = 0
    """CPU-device seconds: wall seconds times CPU devices held."""
    gpu_hours: float = 0
    """Accelerator hours: wall hours times accelerators held."""
    devices: tuple[str, ...] = ()
    """Devices it held."""
    data: str | None = None
    """Training file."""
    began_from: str | None = None
    """Job whose checkpoint it trained further or evaluated, else the model's folder; null: random weights."""
    began_from_digest: str | None = None
    """Digest of the weights that it began with."""
    checkpoint: str | None = None
    """Final checkpoint folder."""
    checkpoint_digest: str | None = None
    """Digest of its weights."""


class TrialView(Contract):
    """One trial: the idea, its jobs, what the judge said."""

    number: int
    """0 is the baseline."""
    plan: TrialPlan | None = None
    """The proposal; null where it cannot be read."""
    jobs: tuple[JobView, ...] = ()
    """Its jobs, confirmation runs included."""
    screen: Verdict | None = None
    """One dev run against the baseline's seeds."""
    confirm: Verdict | None = None
    """Fresh seeds against the baseline's seeds."""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that decides: the confirmation where there is one."""
        return self.confirm or self.screen

    @computed_field
    @property
    def decision(self) -> Decision | None:
        """The deciding verdict's decision."""
        return self.verdict.decision if self.verdict else None

    @computed_field
    @property
    def hypothesis(self) -> str:
        """The planner's words."""
        return self.plan.hypothesis if self.plan else ""

    @computed_field
    @property
    def status(self) -> str:
        """How its own training job ended, or `planned`."""
        own = [job for job in self.jobs if job.role in ("trial", "baseline")]
        return own[-1].status if own else "planned"

    @computed_field
    @property
    def reason(self) -> str:
        """Why it failed, or the rule's sentence."""
        failed = next((job.reason for job in self.jobs if job.reason), "")
        return failed or (self.verdict.reason if self.verdict else "")

    @computed_field
    @property
    def wall_s(self) -> float:
        """Seconds of all its jobs (side by side they overlap)."""
        return sum(job.wall_s for job in self.jobs)

    @computed_field
    @property
    def device_s(self) -> float:
        """Device seconds of all its jobs, CPU and accelerator."""
        return sum(job.cpu_s + 3600 * job.gpu_hours for job in self.jobs)

    @computed_field
    @property
    def num_tokens(self) -> int:
        """Tokens trained on by all its jobs."""
        return sum(job.num_tokens for job in self.jobs)


class BestPoint(Contract):
    """The best dev value up to a trial, where it changed."""

    trial: int
    """Trial number."""
    value: float
    """Value of the study's metric."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end."""


class Refusal(Contract):
    """Something that a rule refused."""

    at: AwareDatetime
    """When."""
    what: str
    """The rule's sentence."""
    trial: int | None = None
    """Trial number."""


class Signature(Contract):
    """An approval that was given."""

    at: AwareDatetime
    """When."""
    by: str
    """OS user."""
    how: str
    """flag, console or schedule."""


class ScheduledNight(Contract):
    """The scheduled night that started a study."""

    schedule: str
    """Name of the schedule."""
    timezone: str
    """Its time zone."""
    due_at: AwareDatetime
    """When it was due, UTC."""
    ends_at: AwareDatetime | None = None
    """End of its window, UTC; null: none."""


class Phase(Contract):
    """A stretch of the study between two events."""

    name: str
    """What was done."""
    seconds: float
    """How long it took, pauses included."""


class Seal(Contract):
    """The seal of the study's test data."""

    strength: str
    """policy, jail or user (DESIGN §5, rule 6)."""
    opened: bool = False
    """Whether the study looked at a fold."""
    fold: int | None = None
    """Which fold it looked at, from 0."""
    looks: int | None = None
    """Looks taken at that fold so far, by every study."""
    allowed: int = 1
    """Looks that one fold allows."""


class Spent(Contract):
    """What the study used, against what it was allowed."""

    allowed: Budget = Budget()
    """The budget in force."""
    amount: Amount = Amount()
    """Settled use of all jobs."""
    active_s: float = 0
    """Seconds of work, time in which nothing ran not counted."""


class Origin(Contract):
    """A source of the training data, as its manifest names it."""

    name: str
    """The reference as the goal named it."""
    num_files: int
    """Files read."""
    num_rows: int
    """Rows read."""
    content_digest: str
    """SHA-256 of its files' names and digests."""
    columns: str = ""
    """Which columns conversations were made of, and why; empty where rows are texts."""


class DataStep(Contract):
    """A step of the data pipeline."""

    name: str
    """Kind of step."""
    rows_in: int
    """Rows before it."""
    rows_out: int
    """Rows after it."""


class Lineage(Contract):
    """From source to checkpoint, by digest."""

    data: str | None = None
    """The training file that the jobs read."""
    data_digest: str | None = None
    """Digest of the dataset: of its sources' content and its steps."""
    sources: tuple[Origin, ...] = ()
    """What it was built from."""
    steps: tuple[DataStep, ...] = ()
    """How it was built."""
    rows: dict[str, int] = {}
    """Split -> rows."""
    dev_suite_digest: str | None = None
    """Suite of the dev evaluations."""
    sealed_suite_digest: str | None = None
    """Suite of the sealed evaluations."""
    checkpoint: str | None = None
    """The winner's checkpoint folder."""
    checkpoint_digest: str | None = None
    """Digest of its weights."""


class StudyView(Contract):
    """Everything that is known of one study. Every figure is from a result file, a verdict or the ledger."""

    id: str
    """Study id."""
    workspace: str
    """Absolute path of the workspace's folder."""
    goal: str
    """The text, verbatim."""
    state: str
    """Where it stands."""
    standing: Standing = Standing.ENDED
    """Whether it goes on by itself, or what it waits for."""
    outcome: Outcome | None = None
    """How it ended; null: not ended."""
    reason: str = ""
    """Why it ended so."""
    created_at: AwareDatetime
    """When it was begun."""
    ended_at: AwareDatetime | None = None
    """When its outcome was reached."""
    night: ScheduledNight | None = None
    """The night that started it; null: a person did."""
    spec: GoalSpec | None = None
    """The goal as understood."""
    plan: StudyPlan | None = None
    """How it is pursued."""
    sources: dict[str, JsonValue] = {}
    """JSON pointer into the spec -> where the value came from."""
    metric: MetricName
    """The metric that is judged."""
    lower_is_better: bool
    """Its direction."""
    trials: tuple[TrialView, ...] = ()
    """By number; 0 is the baseline."""
    baseline: dict[int, float] = {}
    """Seed -> dev value of the baseline recipe."""
    sides: SideBySide | None = None
    """Baseline and winner side by side; null where it was not asked for, or nothing can be compared."""
    seed_deviation: float | None = None
    """Standard deviation of those values; null below two seeds."""
    target: float | None = None
    """The first target on the dev scale; null where there is none."""
    best: tuple[BestPoint, ...] = ()
    """Best dev value so far, one point where it changed."""
    claims: tuple[Claim, ...] = ()
    """What the sealed split showed."""
    winner: int | None = None
    """Trial whose checkpoint was unsealed; else the best promoted one."""
    winner_key: str | None = None
    """The job of its best seed; without a claim, of its trial."""
    reference_key: str | None = None
    """The baseline's job that it was compared with on the sealed split."""
    seal: Seal
    """How well the test data are sealed, and whether the study looked."""
    spent: Spent = Spent()
    """Cost."""
    approvals: tuple[Signature, ...] = ()
    """Who approved what was run."""
    refusals: tuple[Refusal, ...] = ()
    """What was refused."""
    warnings: tuple[str, ...] = ()
    """What was noticed on the way."""
    phases: tuple[Phase, ...] = ()
    """Where the time went."""
    lineage: Lineage = Lineage()
    """Digests."""
    measurement: Measurement | None = None
    """What models scored that nobody trained here."""
    built: tuple[SplitRecord, ...] = ()
    """Files of a dataset that was the goal itself."""
    findings: tuple[str, ...] = ()
    """What its build found."""
    other_jobs: tuple[JobView, ...] = ()
    """Jobs outside the trials: evaluations on the sealed split."""
    versions: dict[str, str] = {}
    """Package -> version, where the view was made."""

    @property
    def proposed(self) -> tuple[TrialView, ...]:
        """Trials that the planner proposed: all but the baseline."""
        return tuple(trial for trial in self.trials if trial.number > 0)

    @property
    def trains(self) -> bool:
        """Whether the goal asks for training, or nobody knows what it asks for."""
        return self.spec is None or self.spec.intent == "train"

    @property
    def jobs(self) -> tuple[JobView, ...]:
        """Every job."""
        return (*(job for trial in self.trials for job in trial.jobs), *self.other_jobs)

    @property
    def overhead_s(self) -> float:
        """Seconds of ended jobs outside training and evaluation: start, saving, exit."""
        return sum(job.wall_s - job.train_s - job.evaluate_s for job in self.jobs)

    @property
    def running(self) -> tuple[JobView, ...]:
        """Jobs without a result."""
        return tuple(job for job in self.jobs if not job.ended)

    @property
    def has_fixed_reference(self) -> bool:
        """Whether the baseline is a model as it is, evaluated once."""
        return self.plan is not None and self.plan.model is not None

    @property
    def baseline_mean(self) -> float | None:
        """Mean over the baseline's seeds."""
        return sum(self.baseline.values()) / len(self.baseline) if self.baseline else None


class StudySummary(Contract):
    """One line of `nightsmith studies`."""

    id: str
    """Study id."""
    goal: str
    """The text, verbatim."""
    state: str
    """Where it stands."""
    outcome: Outcome | None = None
    """How it ended."""
    standing: Standing = Standing.ENDED
    """Whether it goes on by itself, or what it waits for."""
    created_at: AwareDatetime
    """When it was begun."""
    num_trials: int
    """Proposed trials so far."""
    num_promoted: int
    """Trials whose recipe was promoted."""
