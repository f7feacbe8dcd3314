"""The tool `evaluate`: one checkpoint on one split, as a job."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from nightsmith.evals.types import EvaluateSpec, SuiteSpec
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolArgs, ToolError
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.training import require_dataset


class Evaluate(ToolArgs):
    """Score a trained checkpoint on held-out rows: bits per byte, loss and perplexity, item by item."""

    job: str = Field(pattern=r"^(?:[0-9a-f]{12}|\$[a-z_]+)$")
    """Key of the job that trained it (12 hex digits), or a name of the plan such as `$winner`."""
    dataset: str = "$dataset"
    """Digest of a built dataset (12 or 64 digits); `$dataset`: the one that the plan builds."""
    split: Literal["dev", "sealed"] = "dev"
    """`dev` may be looked at freely; `sealed` costs one of its looks."""
    fold: int = Field(default=0, ge=0, le=15)
    """Which sealed fold; without meaning for dev."""
    max_items: int = Field(default=256, gt=0, le=10**7)
    """Items at most, in the order of their row ids."""
    max_bytes: int = Field(default=2048, gt=0, le=2**26)
    """Bytes scored per item, from its beginning."""
    seq_len: int = Field(default=128, ge=8, le=2**20)
    """Window in tokens."""


def evaluate_spec(
    args: Evaluate, manifest: Manifest, ws: Workspace, *, checkpoint: Path, checkpoint_digest: str
) -> EvaluateSpec:
    """The job that evaluates a checkpoint.

    Args:
        args: split, items and window.
        manifest: the dataset; must be the one that `args.dataset` names, unless that is `$dataset`.
        ws: workspace that it is published in.
        checkpoint: folder of the checkpoint that `args.job` left.
        checkpoint_digest: its digest, as that job recorded it.

    Raises:
        ToolError: the dataset is another one, has no such fold, or the checkpoint is gone.
    """
    require_dataset(args.dataset, manifest)
    if not checkpoint.is_dir():
        raise ToolError(f"Job {args.job} has no checkpoint folder {str(checkpoint)!r}. Name a job that finished.")
    name = "dev" if args.split == "dev" else f"fold{args.fold}"
    suite = SuiteSpec(
        data=str(manifest.path(ws, name)), data_digest=manifest.split(name).data_digest, split=args.split,
        max_items=args.max_items, max_bytes=args.max_bytes, seq_len=args.seq_len,
    )  # fmt: skip
    return EvaluateSpec(checkpoint=str(checkpoint.resolve()), checkpoint_digest=checkpoint_digest, suite=suite)
