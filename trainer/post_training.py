"""Specs of the jobs that TRL trains: what all of them say, and what each method adds. Torch-free."""

from typing import Literal

from pydantic import Field

from nightsmith.evals.types import SuiteSpec
from nightsmith.record.digest import Contract


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
    adaptation: Literal["full", "lora"] = "lora"
    """`full`: every weight; `lora`: adapters on all linear layers (arXiv:2106.09685)."""
    lora_rank: int = Field(default=16, gt=0, le=1024)
    """Rank of the adapters."""
    lora_alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    train_router: bool = False
    """Whether `full` trains the routers of a mixture of experts too."""
    max_len: int = Field(default=512, gt=1)
    """Longest row in tokens."""
    batch_size: int = Field(default=8, gt=0)
    """Rows per optimizer step."""
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
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seeds adapters, dropout and data order."""
    checkpoint_every_s: float = Field(default=60.0, gt=0)
    """Seconds between checkpoints that a run can be resumed from."""
    dev_suite: SuiteSpec | None = None
    """Evaluated by the same process after the final checkpoint is on disk; null: not evaluated."""


class SftSpec(PostTraining):
    """Fine-tuning of an existing causal language model on one published training file, through TRL."""

    kind: Literal["sft"] = "sft"
    """Discriminator of the job union."""
    rows: Literal["chat", "text"] = "chat"
    """`chat`: column `messages` and perhaps `tools`, only assistant turns are trained; longer rows than `max_len` are
    left out and counted. `text`: column `text`, every token is trained; texts are cut into rows of `max_len`."""
