"""Specs of the jobs that train an existing model: what all of them say, and what each method adds. Torch-free."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nightsmith.evals.types import SuiteSpec
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.record.digest import Contract

Backend = Literal["trl", "fused", "axolotl", "automodel"]
"""What trains: within the job TRL, or transformers' Trainer on fused layers; or a trainer that is installed apart and
runs as the job's child."""
OWN_BACKENDS = ("trl", "fused")
"""Those within the job."""


class ModelRef(Contract):
    """A model to start from, by place and content."""

    path: str
    """Absolute path of a folder: a Hugging Face causal language model, or an earlier job's checkpoint or adapter."""
    weights_digest: str
    """Digest of its weights (`model.files.weights_digest`)."""


class PostTraining(Contract):
    """What every training of an existing model says, whatever the method."""

    model: ModelRef
    """What is trained."""
    data: str
    """Absolute path of a parquet file with a column `row_id` and those of the method."""
    data_digest: str
    """SHA-256 of that file."""
    backend: Backend = "trl"
    """`trl`: this installation's; `fused`: LoRA of a Llama by `sft` on CPUs, faster (docs/post-training.md);
    `axolotl`, `automodel` (NeMo AutoModel): found on PATH, see docs/external.md."""
    adaptation: Literal["full", "lora", "qlora"] = "lora"
    """`full`: every weight; `lora`: adapters on all linear layers (arXiv:2106.09685); `qlora`: adapters on a base of
    4 bits (arXiv:2305.14314), by external trainers only."""
    lora_rank: int = Field(default=16, gt=0, le=1024)
    """Rank of the adapters."""
    lora_alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    lora_experts: bool = True
    """Whether routed experts carry adapters too; only external trainers can leave them out."""
    train_router: bool = False
    """Whether `full` trains the routers of a mixture of experts too."""
    max_len: int = Field(default=512, gt=1)
    """Longest row in tokens."""
    batch_size: int = Field(default=8, gt=0)
    """Rows per optimizer step, over all devices."""
    micro_batch: int | None = Field(default=None, gt=0)
    """Rows that a device works on at once, by external trainers; null: the most that fit."""
    parallel: ParallelPlan | None = None
    """How an external trainer lays the model over its GPUs; null: the best layout that fits (`nightsmith model plan`).
    """
    num_steps: int = Field(gt=0)
    """Optimizer steps."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Learning-rate schedule after warm-up."""
    warmup_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the steps with linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """AdamW weight decay."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are scaled down."""
    precision: Literal["auto", "float32"] = "auto"
    """`auto`: matrix products in bfloat16 on accelerators and where the CPU multiplies it natively, weights, adapters,
    optimizer and loss float32. `float32`: all."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seeds adapters, dropout and data order."""
    checkpoint_every_s: float = Field(default=60.0, gt=0)
    """Seconds between checkpoints that a run can be resumed from."""
    dev_suite: SuiteSpec | None = None
    """Evaluated by the same process after the final checkpoint is on disk; null: not evaluated."""

    @property
    def sequences_per_row(self) -> int:
        """Sequences that a row of the batch is trained as: a pair's two answers, all answers to a prompt."""
        return 1

    @model_validator(mode="after")
    def _require_known_to_own_backends(self) -> Self:
        """They run as one process here, on full or 16-bit weights."""
        asked = {
            "adaptation": self.adaptation == "qlora", "lora_experts": not self.lora_experts,
            "micro_batch": self.micro_batch is not None, "parallel": self.parallel is not None,
        }  # fmt: skip
        if self.backend in OWN_BACKENDS and (names := [name for name, is_asked in asked.items() if is_asked]):
            raise ValueError(
                f"{', '.join(names)}: only external trainers can do that. Set backend to 'axolotl' or 'automodel'."
            )
        if self.backend == "fused" and not isinstance(self, SftSpec):
            raise ValueError("Backend 'fused' can do `sft` alone. Set backend to 'trl'.")
        return self


class SftSpec(PostTraining):
    """Fine-tuning of an existing causal language model on one published training file."""

    kind: Literal["sft"] = "sft"
    """Discriminator of the job union."""
    rows: Literal["chat", "text"] = "chat"
    """`chat`: column `messages` and perhaps `tools`, only assistant turns are trained; longer rows than `max_len` are
    left out and counted. `text`: column `text`, every token is trained; texts are cut into rows of `max_len`."""
    first_layer: int = Field(default=0, ge=0)
    """Layers below it carry no adapters and cost no backward pass; by backend `fused` only."""
    lead_tokens: int = Field(default=0, ge=0)
    """First tokens of each answer that count `lead_weight` times in the loss; by backend `fused` only."""
    lead_weight: float = Field(default=1.0, gt=0)
    """Weight of those tokens; the others count once."""

    @model_validator(mode="after")
    def _require_fusable(self) -> Self:
        own = {"first_layer": self.first_layer > 0, "lead_tokens": self.lead_tokens > 0}
        if self.backend != "fused":
            if names := [name for name, is_asked in own.items() if is_asked]:
                raise ValueError(f"{', '.join(names)}: only backend 'fused' can do that. Set it, or leave them out.")
            return self
        if self.adaptation != "lora" or self.rows != "chat" or self.precision != "auto":
            raise ValueError(
                "Backend 'fused' trains LoRA adapters (adaptation 'lora') on conversations (rows 'chat') in bfloat16 "
                "(precision 'auto'). Set these, or backend to 'trl'."
            )
        return self


class DpoSpec(PostTraining):
    """Training on pairs of answers by direct preference optimization (arXiv:2305.18290), through TRL.

    `data` has columns `row_id`, `prompt`, `chosen` and `rejected`, texts or JSON lists of turns; pairs longer than
    `max_len` are left out and counted. The reference is the model that training starts from: the log-probabilities that
    it gives the answers are computed once, before the first step, and kept in the run folder.
    """

    kind: Literal["dpo"] = "dpo"
    """Discriminator of the job union."""
    beta: float = Field(default=0.1, gt=0, le=10)
    """How much leaving the reference costs; larger stays nearer."""
    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "sppo_hard", "aot", "apo_zero", "apo_down",
        "sigmoid_norm",
    ] = "sigmoid"  # fmt: skip
    """Loss over the difference of log-ratios, by TRL's name; `sigmoid` is that of the paper."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the pairs that are taken to be the wrong way round (`robust`, `exo_pair`)."""
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Peak learning rate of AdamW: TRL's default for whole models is 1e-6; adapters want about ten times as much."""

    @property
    def sequences_per_row(self) -> int:
        """Both answers."""
        return 2

    @model_validator(mode="after")
    def _require_smoothing(self) -> Self:
        if self.loss_type == "exo_pair" and self.label_smoothing == 0:
            raise ValueError("loss_type 'exo_pair' needs a label_smoothing above 0, e.g. 0.001 (arXiv:2402.00856).")
        return self


class RewardSpec(PostTraining):
    """Training of a reward model on pairs of answers, as in `DpoSpec`, through TRL: one score for a conversation."""

    kind: Literal["reward"] = "reward"
    """Discriminator of the job union."""
    held_out: str | None = None
    """Absolute path of a parquet file of pairs that are not trained on; the result's `eval/accuracy` is the share of
    them in which the chosen answer scores higher. Null: not measured."""
    held_out_digest: str | None = None
    """SHA-256 of that file."""
    center_rewards_coefficient: float | None = Field(default=None, gt=0, le=1)
    """Weight of the squared sum of a pair's scores in the loss, which keeps scores near 0; null: none."""
    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""

    @property
    def sequences_per_row(self) -> int:
        """Both answers."""
        return 2

    @model_validator(mode="after")
    def _require_pairs(self) -> Self:
        if self.dev_suite is not None:
            raise ValueError("A reward model writes no text: leave dev_suite out and name pairs as held_out.")
        if (self.held_out is None) != (self.held_out_digest is None):
            raise ValueError("held_out and held_out_digest belong together: give both or neither.")
        return self
