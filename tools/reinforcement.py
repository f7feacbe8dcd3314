"""The tool `grpo`: reinforcement learning as typed arguments, turned into the job that trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from nightsmith.evals.rewards import CommandReward, ExactMatchReward, ReasoningGymReward, Reward, UnitTestsReward
from nightsmith.evals.types import SuiteSpec
from nightsmith.record.digest import file_digest
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.manifest import Manifest, require_dataset
from nightsmith.tools.evaluation import answer_tokens
from nightsmith.tools.finetuning import Tuning, learning_rate
from nightsmith.trainer.spec import GrpoSpec, ModelRef

LEARNING_RATES = {"full": 1e-5, "lora": 1e-4}
"""A policy is moved by far smaller steps than those of fine-tuning: TRL's default for models of billions is 1e-6, and
`nano` unlearns at 3e-4 what it learns at 1e-4."""
TAKEN_OVER = (
    "adaptation", "lora_rank", "lora_alpha", "max_len", "batch_size", "num_steps", "schedule", "warmup_share",
    "weight_decay", "seed", "num_generations", "temperature", "beta", "epsilon", "loss_type",
    "importance_sampling_level", "scale_rewards", "num_iterations",
)  # fmt: skip
"""Arguments that the spec has under the same name."""


class Grpo(Tuning):
    """Train an existing language model by rewards on the prompts of a dataset's train split."""

    default_rates: ClassVar[Mapping[str, float]] = LEARNING_RATES

    reward: Literal["generator", "exact_match", "unit_tests", "command"] | None = None
    """What answers are paid for: the score of the generator that made the rows, the reference answer, tests that are
    the reference, or a Python file's word; null: the generator's where the rows have one, else exact match."""
    reward_file: str | None = None
    """Python file of the reward `command`, with `reward(prompt, completion, reference) -> float`."""
    batch_size: int = Field(default=32, ge=1, le=65536)
    """Prompts per optimizer step."""
    num_generations: int = Field(default=8, ge=2, le=1024)
    """Answers to each prompt."""
    max_completion_length: int | None = Field(default=None, ge=1, le=2**20)
    """Longest answer in tokens; null: enough for the longest reference."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Answers are drawn at this temperature."""
    beta: float = Field(default=0.0, ge=0, le=100)
    """Weight of the divergence from the model that is started from."""
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """The ratio of new to old probability is clipped at 1 plus and minus so much."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "luspo"] = "grpo"
    """How the losses of tokens are added up, by TRL's names."""
    importance_sampling_level: Literal["token", "sequence"] = "sequence"
    """Whether that ratio is a token's (GRPO) or a whole answer's (GSPO)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Over what rewards are divided by their deviation."""
    num_iterations: int = Field(default=1, ge=1, le=100)
    """Times that each answer is trained on."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning-rate schedule after warm-up."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of AdamW; null: 1e-4 with LoRA, 1e-5 for every weight."""

    @model_validator(mode="after")
    def _file_and_reward_agree(self) -> Self:
        if (self.reward == "command") != (self.reward_file is not None):
            raise ValueError("reward 'command' needs reward_file, and no other reward has one: set both or neither")
        return self


def grpo_spec(
    args: Grpo, manifest: Manifest, ws: Workspace, *, model: ModelRef, suite: SuiteSpec | None,
    checkpoint_every_s: float = 60.0,
) -> GrpoSpec:  # fmt: skip
    """The job that trains a model by rewards on a dataset's train split.

    Args:
        args: the recipe.
        manifest: the dataset; must be the one that `args.dataset` names, unless that is `$dataset`.
        ws: workspace that it is published in.
        model: the folder that `args.model` stands for, with the digest of its weights.
        suite: evaluated after the last step; None: the job is not evaluated.
        checkpoint_every_s: seconds between checkpoints.

    Raises:
        ToolError: the dataset is another one or has no conversations, or the reward cannot be given for its rows.
    """
    require_dataset(args.dataset, manifest)
    if manifest.rows == "text":
        raise ToolError(f"Dataset {manifest.name} has rows of text, no prompts to answer. Build it with rows='chat'.")
    longest = args.max_completion_length or answer_tokens(manifest)
    return GrpoSpec(
        model=model, data=str(manifest.path(ws, "train")), data_digest=manifest.split("train").data_digest,
        rewards=(reward_of(args, manifest),), max_completion_length=min(longest, args.max_len - 1),
        learning_rate=learning_rate(args), checkpoint_every_s=checkpoint_every_s, dev_suite=suite,
        **{name: getattr(args, name) for name in TAKEN_OVER},
    )  # fmt: skip


def reward_of(args: Grpo, manifest: Manifest) -> Reward:
    """The reward that is meant. Raises ToolError."""
    generated = _generator_reward(manifest)
    match args.reward or ("generator" if generated else "exact_match"):
        case "generator" if generated is None:
            raise ToolError(
                f"The rows of dataset {manifest.name} were not all made by one generator, which could score answers. "
                "Set reward to 'exact_match'."
            )
        case "generator":
            return generated or ExactMatchReward()
        case "unit_tests":
            return UnitTestsReward()
        case "command":
            return _command(str(args.reward_file))
        case _:
            return ExactMatchReward()


def _generator_reward(manifest: Manifest) -> ReasoningGymReward | None:
    """The verifier of the generator that made all training rows."""
    made = [source.generator for source in manifest.sources if source.role == "train"]
    if len(made) != 1 or (generator := made[0]) is None:
        return None
    return ReasoningGymReward(
        task=generator.task, parameters=generator.parameters, seed=generator.seed,
        num_generated=generator.num_generated,
    )  # fmt: skip


def _command(given: str) -> CommandReward:
    path = Path(given).expanduser().resolve()
    try:
        return CommandReward(path=str(path), file_digest=file_digest(path))
    except OSError as error:
        raise ToolError(f"The reward {given!r} cannot be read ({error.strerror}). Name a Python file.") from error
