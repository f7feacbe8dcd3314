"""The tool `dpo`: training on preferences as typed arguments, turned into the job that trains."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from nightsmith.evals.types import SuiteSpec
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolError
from nightsmith.tools.data.manifest import Manifest, require_dataset
from nightsmith.tools.finetuning import Tuning, learning_rate
from nightsmith.trainer.spec import DpoSpec, ModelRef

LEARNING_RATES = {"full": 5e-6, "lora": 5e-5}
"""A tenth of fine-tuning's: TRL's defaults for models of billions are 1e-6, and ten times that with adapters."""
TAKEN_OVER = (
    "adaptation", "lora_rank", "lora_alpha", "max_len", "batch_size", "num_steps", "schedule", "warmup_share",
    "weight_decay", "seed", "beta", "loss_type", "label_smoothing",
)  # fmt: skip
"""Arguments that the spec has under the same name."""


class Dpo(Tuning):
    """Train an existing language model on a dataset's pairs of answers, by direct preference optimization (DPO)."""

    default_rates: ClassVar[Mapping[str, float]] = LEARNING_RATES

    beta: float = Field(default=0.1, gt=0, le=10)
    """How much leaving the model that is started from costs; larger stays nearer."""
    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "sppo_hard", "aot", "apo_zero", "apo_down",
        "sigmoid_norm",
    ] = "sigmoid"  # fmt: skip
    """Loss over the difference of log-ratios, by TRL's name."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the pairs that are taken to be the wrong way round (`robust`, `exo_pair`)."""
    max_len: int = Field(default=512, ge=8, le=2**20)
    """Longest prompt with an answer, in tokens. Longer pairs are left out and counted."""
    batch_size: int = Field(default=8, ge=1, le=65536)
    """Pairs per optimizer step."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of AdamW; null: 5e-5 with LoRA, 5e-6 for every weight."""

    @model_validator(mode="after")
    def _smoothing_fits_the_loss(self) -> Self:
        if self.loss_type == "exo_pair" and self.label_smoothing == 0:
            raise ValueError("loss_type 'exo_pair' needs a label_smoothing above 0, e.g. 0.001 (arXiv:2402.00856)")
        return self


def dpo_spec(
    args: Dpo, manifest: Manifest, ws: Workspace, *, model: ModelRef, suite: SuiteSpec | None,
    checkpoint_every_s: float = 60.0,
) -> DpoSpec:  # fmt: skip
    """The job that trains a model on the pairs of a dataset's train split.

    Args:
        args: the recipe.
        manifest: the dataset; must be the one that `args.dataset` names, unless that is `$dataset`.
        ws: workspace that it is published in.
        model: the folder that `args.model` stands for, with the digest of its weights: also the reference.
        suite: evaluated after the last step; None: the job is not evaluated.
        checkpoint_every_s: seconds between checkpoints.

    Raises:
        ToolError: the dataset is another one, or has no pairs.
    """
    require_dataset(args.dataset, manifest)
    if manifest.rows != "preference":
        raise ToolError(
            f"Dataset {manifest.name} has rows of kind {manifest.rows!r}, no pairs of a chosen and a rejected answer. "
            "Build it with rows='preference'."
        )
    return DpoSpec(
        model=model, data=str(manifest.path(ws, "train")), data_digest=manifest.split("train").data_digest,
        learning_rate=learning_rate(args), checkpoint_every_s=checkpoint_every_s, dev_suite=suite,
        **{name: getattr(args, name) for name in TAKEN_OVER},
    )  # fmt: skip
