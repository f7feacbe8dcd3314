"""The run's nouns: what is trained (RunSpec), how it is started (LaunchSpec), how it ended (RunResult)."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from nightsmith.evals.types import EvaluateSpec, Evaluation, SuiteSpec
from nightsmith.model.capacity.families import shape_of
from nightsmith.model.capacity.published import config_of
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan, plans, why_not
from nightsmith.model.presets import Architecture, BalanceMode, balance_mode
from nightsmith.record.digest import Contract
from nightsmith.trainer.grpo_spec import GrpoSpec
from nightsmith.trainer.launch.site import LocalSite, Site
from nightsmith.trainer.post_training import DpoSpec, ModelRef, PostTraining, RewardSpec, SftSpec

__all__ = [
    "DpoSpec",
    "GrpoSpec",
    "LaunchSpec",
    "ModelRef",
    "PostTraining",
    "PretrainSpec",
    "RewardSpec",
    "RunResult",
    "RunSpec",
    "RunStatus",
    "SftSpec",
    "TrainSpec",
]


class PretrainSpec(Contract):
    """From-scratch pre-training of a Small 4 style model on one published training file."""

    kind: Literal["pretrain"] = "pretrain"
    """Discriminator of the job union."""
    architecture: Architecture
    """Shape of the model; `seq_len` and `batch_size` in it rule the training window and step."""
    data: str
    """Absolute path of a parquet file with columns `row_id` and `text`."""
    data_digest: str
    """SHA-256 of that file."""
    num_steps: int = Field(gt=0)
    """Optimizer steps."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon (arXiv:2502.16982) on the matrices of attention and experts, with updates as large as AdamW's, and
    AdamW on embedding, head, routers and norms. Its best rates are higher."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Peak learning rate of the optimizer."""
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    """Learning-rate schedule after warm-up; `wsd` decays over the last fifth."""
    warmup_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the steps with linear warm-up."""
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    """Weight decay (matrices only)."""
    beta2: float = Field(default=0.95, gt=0, lt=1)
    """AdamW second-moment decay."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are scaled down."""
    router_aux_loss_coef: float = Field(default=0.0, ge=0, le=1)
    """Weight of the per-layer load-balancing loss."""
    balance_mode: BalanceMode | None = None
    """How the experts are kept evenly used: `none`, `aux` (the loss), `bias` (a selection bias that follows the loads,
    and the loss where its coefficient is above 0); null: `aux` where router_aux_loss_coef is above 0, else `none`."""
    router_z_loss_coef: float = Field(default=0.0, ge=0, le=1)
    """Weight of the per-layer z-loss, which keeps the routers' logits small."""
    router_bias_update_rate: float = Field(default=1e-3, gt=0, le=1)
    """Step of the selection bias in `bias` mode, in probability."""
    precision: Literal["auto", "float32"] = "auto"
    """`auto`: matrix products in bfloat16 where the CPU multiplies it natively, all else float32. `float32`: all."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seeds initial weights and data order."""
    separate_documents: bool = False
    """Whether attention stays within a document where a window holds the end of one and the beginning of the next."""
    parallel: ParallelPlan = ParallelPlan()
    """Processes of the run, and what each of them holds. Every plan takes the steps that one process takes."""
    checkpoint_every_s: float = Field(default=30.0, gt=0)
    """Seconds between checkpoints that a run can be resumed from."""
    dev_suite: SuiteSpec | None = None
    """Evaluated by the same process after the final checkpoint is on disk; null: not evaluated."""

    @property
    def routing(self) -> dict[str, Any]:
        """The fields that the model's routers are built with, under their names in its config."""
        names = ("balance_mode", "router_aux_loss_coef", "router_z_loss_coef", "router_bias_update_rate")
        return {name: getattr(self, name) for name in names}

    @model_validator(mode="after")
    def _require_consistent_routing(self) -> Self:
        balance_mode(self.balance_mode, self.router_aux_loss_coef)
        return self

    @model_validator(mode="after")
    def _require_whole_matrices(self) -> Self:
        if self.optimizer == "muon" and self.parallel.fsdp * self.parallel.tp > 1:
            raise ValueError(
                "Muon works on whole matrices: lay the run out by dp (and ep), or set optimizer to 'adamw'."
            )
        return self

    @model_validator(mode="after")
    def _require_layout(self) -> Self:
        world = self.parallel.world
        if self.parallel == ParallelPlan() or (problem := _why_not(self.architecture, self.parallel)) is None:
            return self
        known = [ParallelPlan(dp=world), ParallelPlan(dp=world, ep=world), *plans(_shape(self.architecture), world)]
        ways = [plan for plan in known if not _why_not(self.architecture, plan)]
        told = " or ".join(plan.canonical() for plan in ways) or "none; ask for another number of processes"
        raise ValueError(f"{problem}. Layouts over {world} processes: {told}")


def _why_not(architecture: Architecture, plan: ParallelPlan) -> str | None:
    """What forbids a from-scratch run to be spread so; None where nothing does."""
    if plan.pp > 1:
        return "pipeline stages (pp) are not trained from scratch"
    if architecture.batch_size % plan.shares:
        return f"a batch of {architecture.batch_size} cannot be split evenly among {plan.shares} processes"
    return why_not(_shape(architecture), plan)


def _shape(architecture: Architecture) -> ModelShape:
    shape = shape_of(config_of(architecture), "architecture")
    assert shape is not None, "presets are of a known family"
    return shape


TrainSpec = PretrainSpec | PostTraining
"""Jobs that change weights."""
RunSpec = Annotated[
    PretrainSpec | SftSpec | DpoSpec | RewardSpec | GrpoSpec | EvaluateSpec, Field(discriminator="kind")
]
"""What one job does. Evaluations are jobs too: they draw on the same budget, leases and approvals."""


class LaunchSpec(Contract):
    """One start of processes, whatever the launcher."""

    argv: tuple[str, ...] = Field(min_length=1)
    """Command line."""
    env: dict[str, str] = {}
    """Variables set on top of the offline, no-telemetry environment."""
    nodes: int = Field(default=1, gt=0)
    """Machines."""
    processes: int = Field(default=1, gt=0)
    """Processes per machine that train; more than one are started by the worker through torchrun."""
    devices: tuple[str, ...] = ()
    """Leased devices, `cpu:0` (one thread) or `cuda:0`."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Rows of a batch that are in memory at once, gradients of the parts added up; null: whole batches. Set where an
    earlier start ran out of memory."""
    time_limit_s: float = Field(gt=0)
    """Seconds after which the job ends itself, agent or no agent."""
    workdir: str
    """Folder the processes start in: the run folder."""
    site: Site = LocalSite()
    """Where they run, and with it the launcher that starts them and is asked what became of them."""


class RunStatus(StrEnum):
    """How a job ended."""

    FINISHED = "FINISHED"
    """To its end, with its artefacts on disk."""
    FAILED = "FAILED"
    """By an error; `reason` names it."""
    STOPPED = "STOPPED"
    """On request."""
    TIMED_OUT = "TIMED_OUT"
    """At its time limit."""
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    """Memory was exhausted."""
    DISK_FULL = "DISK_FULL"
    """The disk was full; the last good checkpoint is intact."""
    HALTED = "HALTED"
    """By a monitor, which `reason` names; its evidence is in the run folder, its weights are marked not promotable."""
    NOT_FINITE = "NOT_FINITE"
    """The loss became NaN or infinite."""
    HUNG = "HUNG"
    """A process gave no sign of life any more; `reason` names it."""
    KILLED = "KILLED"
    """A process vanished without an exit record."""


class RunResult(Contract):
    """The digested truth about one job: `result.json` in its run folder. A failed run is a value, not an exception."""

    key: str
    """The job's key: 12 hex digits."""
    spec_digest: str
    """Digest of the RunSpec."""
    status: RunStatus
    """How it ended."""
    reason: str = ""
    """What went wrong and what mends it; empty when finished."""
    metrics: dict[str, float] = {}
    """Final figures, e.g. `train/loss`, `time/tokens_per_s`, `router/max_vio`."""
    checkpoint: str | None = None
    """Absolute path of the final checkpoint folder."""
    checkpoint_digest: str | None = None
    """Digest of the final checkpoint's weights."""
    initial_digest: str | None = None
    """Digest of the weights before the first step: equal to the final one means nothing was trained."""
    evaluation: Evaluation | None = None
    """Evaluation on the dev suite (training) or on the asked suite (evaluate)."""
    num_steps: int = Field(default=0, ge=0)
    """Optimizer steps done."""
    num_tokens: int = Field(default=0, ge=0)
    """Tokens trained on."""
    wall_s: float = Field(default=0, ge=0)
    """Seconds from process start to exit record."""
    train_s: float = Field(default=0, ge=0)
    """Seconds in training steps."""
    evaluate_s: float = Field(default=0, ge=0)
    """Seconds in evaluation."""
    peak_memory_gib: float = Field(default=0, ge=0)
    """Largest resident set of any of its processes."""
    devices: tuple[str, ...] = ()
    """Devices it held."""
