"""Spec of a reinforcement learning job by group-relative policy optimisation. Torch-free."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nightsmith.evals.rewards import CommandReward, ExactMatchReward, FormatReward, Reward
from nightsmith.trainer.monitors import MonitorLimits
from nightsmith.trainer.post_training import PostTraining


class GrpoSpec(PostTraining):
    """Reinforcement learning of an existing causal language model on prompts of one published file, through TRL.

    GRPO (arXiv:2402.03300); `importance_sampling_level` "sequence" with `loss_type` "grpo" is GSPO (arXiv:2507.18071),
    which mixtures of experts want: their routers choose other experts after each update. Rows are conversations
    (column `messages`) whose last turn is the reference answer; rows of `batch_size` are prompts, each answered
    `num_generations` times. Prompts that leave no room for an answer within `max_len` are left out and counted.
    """

    kind: Literal["grpo"] = "grpo"
    """Discriminator of the job union."""
    rewards: tuple[Reward, ...] = Field(min_length=1)
    """What completions are paid for: the sum of these by their weights."""
    verifier: Reward | None = None
    """Scores the same completions but is never trained on, so that a reward that pays for something else shows; null:
    the exact match where a reward is a command or a format, else none."""
    monitors: MonitorLimits = MonitorLimits()
    """When to stop the run."""
    num_generations: int = Field(default=8, ge=2)
    """Answers to each prompt: the group within which rewards are compared."""
    max_completion_length: int = Field(default=64, gt=0)
    """Longest answer in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Answers are drawn at this temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Answers are drawn from the most probable tokens that hold this probability together."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "luspo"] = "grpo"
    """How the losses of tokens are added up, by TRL's names."""
    importance_sampling_level: Literal["token", "sequence"] = "sequence"
    """Whether the ratio of new to old probability is that of a token (GRPO) or of a whole answer (GSPO)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Over what rewards are divided by their deviation; `none`: not (Dr. GRPO)."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the model that was started from; 0: that model is not held in memory."""
    epsilon: float = Field(default=0.2, gt=0)
    """The ratio is clipped below 1 by so much."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """The ratio is clipped above 1 by so much; null: as below."""
    steps_per_generation: int = Field(default=1, gt=0)
    """Optimizer steps that share a generation, each on its own answers."""
    num_iterations: int = Field(default=1, gt=0)
    """Times that each answer is trained on."""
    mask_truncated_completions: bool = False
    """Whether answers that were cut at their longest are left out of the loss."""
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning-rate schedule after warm-up."""
    allow_plain_process: bool = False
    """Whether a reward's code may run without a sandbox where none works: a person's explicit permission."""
    precision: Literal["auto", "float32"] = "auto"
    """`auto`: matrix products in bfloat16 on accelerators alone, so that a CPU draws and scores answers alike."""
    vllm_url: str | None = None
    """URL of a `trl vllm-serve` server that answers the prompts (on GPUs); null: the training process does."""

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> Self:
        if self.max_completion_length >= self.max_len:
            raise ValueError(
                f"max_completion_length {self.max_completion_length} leaves no room for a prompt in max_len "
                f"{self.max_len}: raise max_len"
            )
        return self

    @property
    def sequences_per_row(self) -> int:
        """The answers to a prompt."""
        return self.num_generations

    @property
    def verifying(self) -> Reward | None:
        """The verifier that is used."""
        gameable = any(isinstance(reward, CommandReward | FormatReward) for reward in self.rewards)
        return self.verifier or (ExactMatchReward() if gameable else None)

    @property
    def boundary(self) -> int:
        """Optimizer steps from one generation to the next."""
        return self.steps_per_generation * self.num_iterations

    @property
    def num_prompts(self) -> int:
        """Prompts that are drawn in all."""
        return -(-self.num_steps // self.boundary) * self.batch_size * self.steps_per_generation
