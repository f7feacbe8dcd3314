"""The judge's nouns: metric, target, suite, evaluation, verdict, outcome."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from nightsmith.record.digest import Contract

MetricName = Literal[
    "exact_match",
    "accuracy",
    "macro_f1",
    "token_f1",
    "f1",
    "pass_at_1",
    "perplexity",
    "bits_per_byte",
    "loss",
    "rouge_l",
    "win_rate",
    "reward",
    "output_tokens",
    "custom",
]
Operator = Literal[">=", "<=", ">", "<", "max", "min"]
LOWER_IS_BETTER: frozenset[str] = frozenset({"perplexity", "bits_per_byte", "loss", "output_tokens"})


class Target(Contract):
    """One condition on a metric: absolute, or relative to the baseline or to a named reference."""

    metric: MetricName
    """Canonical metric; shares are fractions (85 % is 0.85)."""
    name: str | None = None
    """The metric's own name, where `metric` is `custom`."""
    task: str | None = None
    """Benchmark or task that the metric is taken on, as the goal names it."""
    data: str | None = None
    """Data reference that the metric is taken on."""
    op: Operator
    """Comparison; `max` and `min` are open-ended (no value)."""
    value: float | None = None
    """Threshold in the metric's unit; null for `max` and `min`."""
    relative_to: str | None = None
    """`baseline`, or a reference as the goal names it; null: the threshold is absolute."""
    relation: Literal["difference", "ratio"] = "difference"
    """How the candidate is related to the reference: candidate - reference, or candidate / reference."""
    stage: int | None = None
    """Stage (index into the methods) after which the condition holds; null: after the last."""


class SuiteSpec(Contract):
    """What is evaluated: one data file, the items taken from it, the window in which the model reads them."""

    data: str
    """Absolute path of a parquet file with columns `row_id` and `text`, for `chat` also `messages` (and `tools`), for
    `pairs` also `rejected`."""
    data_digest: str
    """SHA-256 of that file; an evaluation on other bytes is TAMPERED."""
    split: Literal["dev", "sealed"]
    """`dev` may be looked at freely (it only screens); `sealed` costs a look."""
    max_items: int = Field(default=256, gt=0)
    """Items at most, taken in the order of their row ids."""
    max_bytes: int = Field(default=2048, gt=0)
    """Bytes scored per item, from its beginning."""
    seq_len: int = Field(default=128, gt=0)
    """Window in tokens; longer items are scored window by window."""
    kind: Literal["text", "chat"] = "text"
    """`text`: likelihood of whole texts. `chat`: rows are conversations (column `messages`) whose last assistant turn
    is the reference answer: its likelihood given what comes before it."""
    answers: bool = False
    """Chat only: each prompt is also answered by greedy decoding, for exact match, token F1 and output tokens."""
    pairs: bool = False
    """Chat only: the reference answer is compared with a rejected one, for accuracy (the share of rows in which the
    model gives it the higher likelihood) and margin (by how many nats, in the mean)."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer in tokens."""


class EvaluateSpec(Contract):
    """A job that evaluates one checkpoint on one suite."""

    kind: Literal["evaluate"] = "evaluate"
    """Discriminator of the job union."""
    checkpoint: str
    """Absolute path of the checkpoint folder: a whole model, or a LoRA adapter that names its base."""
    checkpoint_digest: str
    """Digest of its weights (`model.files.weights_digest`), as recorded when it was made or named."""
    suite: SuiteSpec
    """What it is evaluated on."""


class Evaluation(Contract):
    """One checkpoint on one suite: where the item-level scores lie, and the metrics they give."""

    checkpoint_digest: str
    """Digest of the evaluated checkpoint."""
    suite_digest: str
    """Digest of the SuiteSpec."""
    items: str
    """Path of the item scores, relative to the run folder: parquet with `row_id, nll_nats, num_tokens, num_bytes`, and
    with answers also `exact_match, token_f1, output_tokens, answer`, of pairs also `accuracy, margin`."""
    items_digest: str
    """SHA-256 of that file."""
    metrics: dict[str, float]
    """Canonical metric -> value over all items."""
    num_items: int = Field(ge=0)
    """Items scored."""
    wall_s: float = Field(ge=0)
    """Seconds it took."""


class Evidence(Contract):
    """What the judge asks of a job before it compares anything. Every `found` digest is recomputed from disk."""

    key: str
    """The job's key."""
    status: str
    """How the job ended; only `FINISHED` is evidence."""
    trained: bool = True
    """Whether the job trains; evaluations alone have no initial digest and no training tokens."""
    suite: SuiteSpec
    """The suite of the study, with its data digest as it was when the study began."""
    data_found: str | None = None
    """SHA-256 of the suite's data file now; null: absent."""
    evaluation: Evaluation | None = None
    """The evaluation that the job recorded."""
    items_found: str | None = None
    """SHA-256 of the item scores now; null: absent."""
    checkpoint_digest: str | None = None
    """Digest of the weights that the job recorded."""
    checkpoint_found: str | None = None
    """Digest of the checkpoint's weights now; null: absent."""
    initial_digest: str | None = None
    """Digest of the weights before the first training step."""
    num_tokens: int = Field(default=0, ge=0)
    """Tokens trained on."""
    train_s: float = Field(default=0, ge=0)
    """Seconds in training steps."""
    flops_per_token: float = Field(default=0, ge=0)
    """Lower bound of the floating-point operations to train on one token; 0: not known, throughput is not judged."""
    devices: tuple[str, ...] = ()
    """Devices that the job held."""


class Decision(StrEnum):
    """What the judge can say of a trial (DESIGN §5)."""

    PROMOTED = "PROMOTED"
    """Recipe claim holds: fresh seeds of the candidate beat seeds of the baseline."""
    REJECTED = "REJECTED"
    """The change does not help."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """The evidence does not decide."""
    UNVERIFIED = "UNVERIFIED"
    """Evidence is missing or not plausible."""
    TAMPERED = "TAMPERED"
    """What judges was changed within the study."""


class GuardrailCheck(Contract):
    """One guardrail and whether the candidate keeps it."""

    guardrail: Target
    """The condition."""
    estimate: float | None = None
    """Observed value of the guarded quantity; null where it could not be measured."""
    kept: bool
    """False also where it could not be measured."""


class Verdict(Contract):
    """The judgement of one comparison, with the figures it rests on. Differences are candidate - baseline."""

    decision: Decision
    """The judgement."""
    rule: Literal["screen", "confirm", "evidence"]
    """Which rule gave it: one dev run against the baseline's seeds; fresh seeds against seeds; missing evidence."""
    metric: MetricName
    """Metric that was compared."""
    value: float | None = None
    """The candidate's own metric value (mean over its seeds)."""
    estimate: float | None = None
    """Candidate - baseline, in the metric's unit."""
    interval: tuple[float, float] | None = None
    """Two-sided 95 % interval of the estimate."""
    n: int = Field(default=0, ge=0)
    """Items compared."""
    seeds: tuple[int, int] = (0, 0)
    """Number of seeds of candidate and baseline."""
    p: float | None = None
    """One-sided p-value of "the candidate is not better"."""
    alpha: float | None = None
    """Level that p was compared with."""
    promising: bool = False
    """Screen only: better than the baseline's seed noise explains, so worth confirming."""
    meets_target: bool = False
    """Whether the estimate meets the goal's targets on this split (no claim by itself)."""
    guardrails: tuple[GuardrailCheck, ...] = ()
    """The goal's guardrails."""
    reason: str
    """One sentence, rendered by code."""


class Claim(Contract):
    """The checkpoint claim: one checkpoint against one target on the sealed split, one look (DESIGN §5, rule 2)."""

    target: Target
    """The condition."""
    estimate: float
    """Observed value of the targeted quantity (absolute, difference or ratio)."""
    bound: float
    """One-sided 95 % bound of it, on the side that the target must clear."""
    n: int = Field(gt=0)
    """Sealed items."""
    met: bool
    """The estimate meets the target."""
    proven: bool
    """The bound meets the target."""


class Difference(Contract):
    """Two models as they are on the same items: first - second."""

    metric: MetricName
    """Metric that was compared."""
    estimate: float
    """First - second, in the metric's unit."""
    interval: tuple[float, float]
    """Two-sided 95 % interval of it, paired by item."""
    n: int = Field(gt=0)
    """Items."""
    better: Literal["first", "second"] | None = None
    """Which one is better; null: the interval holds 0, so that no difference is shown."""


class Outcome(StrEnum):
    """How a study ended."""

    PROVEN = "PROVEN"
    """The one-sided 95 % bound on the sealed split meets every target."""
    MET = "MET"
    """The sealed estimate meets every target, its bound does not; or, of a goal that trains nothing and names no
    threshold, what it asks for was done."""
    IMPROVED = "IMPROVED"
    """A recipe was promoted, but the target was not reached (or the goal named no threshold)."""
    NOT_MET = "NOT_MET"
    """No promoted change and no target reached."""
    STOPPED = "STOPPED"
    """Ended by the user or by a budget before a judgement."""
    BLOCKED = "BLOCKED"
    """Could not be started."""
