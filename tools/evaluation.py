"""The tool `evaluate`: one checkpoint, or a model as it is, on one split, as a job."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from nightsmith.evals.types import EvaluateSpec, SuiteSpec
from nightsmith.record.workspace import Workspace
from nightsmith.tools.base import ToolArgs, ToolError
from nightsmith.tools.data.manifest import Manifest, require_dataset
from nightsmith.trainer.spec import ModelRef

Split = Literal["dev", "sealed"]
LEAST_ANSWER_TOKENS, SPARE_ANSWER_TOKENS = 16, 8
"""An answer may be a little longer than the longest reference before it is cut."""


class Evaluate(ToolArgs):
    """Score a checkpoint on held-out rows, item by item: likelihood, and of conversations also its own answers."""

    job: str = Field(pattern=r"^(?:[0-9a-f]{12}|\$[a-z_]+)$")
    """Key of the job that trained it (12 hex digits), or a name of the plan such as `$winner`, `$model`."""
    dataset: str = "$dataset"
    """Digest of a built dataset (12 or 64 digits); `$dataset`: the one that the plan builds."""
    split: Split = "dev"
    """`dev` may be looked at freely; `sealed` costs one of its looks."""
    fold: int = Field(default=0, ge=0, le=15)
    """Which sealed fold; without meaning for dev."""
    max_items: int = Field(default=256, gt=0, le=10**7)
    """Items at most, in the order of their row ids."""
    max_bytes: int = Field(default=2048, gt=0, le=2**26)
    """Bytes scored per item, from its beginning."""
    seq_len: int = Field(default=128, ge=8, le=2**20)
    """Window in tokens."""
    kind: Literal["text", "chat"] = "text"
    """`text`: likelihood of whole texts; `chat`: of the last assistant turn, given what comes before it."""
    answers: bool = False
    """Chat only: the model also answers each prompt, for exact match, token F1 and output tokens."""
    pairs: bool = False
    """Chat only: the rejected answers of a dataset of pairs are read too, for accuracy and margin."""
    max_new_tokens: int = Field(default=64, gt=0, le=2**15)
    """Longest answer in tokens."""


def text_suite(
    manifest: Manifest, ws: Workspace, split: Split, *, fold: int = 0, max_items: int = 256, max_bytes: int = 2048,
    seq_len: int = 128,
) -> SuiteSpec:  # fmt: skip
    """The suite of whole texts of one split; rows of conversations are read by their texts.

    Args:
        manifest: the dataset.
        ws: workspace that it is published in.
        split: `dev`, or `sealed`.
        fold: which sealed fold.
        max_items: items at most, in the order of their row ids.
        max_bytes: bytes scored per item.
        seq_len: window in tokens.

    Raises:
        ToolError: the dataset has no such split.
    """
    name = "dev" if split == "dev" else f"fold{fold}"
    return SuiteSpec(
        data=str(manifest.path(ws, name)), data_digest=manifest.split(name).data_digest, split=split,
        max_items=max_items, max_bytes=max_bytes, seq_len=seq_len,
    )  # fmt: skip


def chat_suite(
    manifest: Manifest, ws: Workspace, split: Split, *, fold: int = 0, answers: bool = True, pairs: bool = False,
    max_items: int = 256, max_bytes: int = 2048, seq_len: int = 512, max_new_tokens: int = 64,
) -> SuiteSpec:  # fmt: skip
    """The suite of conversations of one split: the last assistant turn is the reference answer.

    Args:
        manifest: a dataset whose rows are conversations.
        ws: workspace that it is published in.
        split: `dev`, or `sealed`.
        fold: which sealed fold.
        answers: each prompt is also answered by greedy decoding.
        pairs: whether the model prefers the chosen answer to the rejected one is measured too.
        max_items: items at most, in the order of their row ids.
        max_bytes: bytes of the answer scored per item.
        seq_len: window in tokens.
        max_new_tokens: longest answer; `answer_tokens` chooses one.

    Raises:
        ToolError: the rows are texts, or no pairs where these are asked for, or the dataset has no such split.
    """
    if manifest.rows == "text":
        raise ToolError(
            f"Dataset {manifest.name} has rows of text, no conversations to answer. Build it with rows='chat', or "
            "evaluate it with kind='text'."
        )
    if pairs and not manifest.has_pairs(split):
        raise ToolError(
            f"The {split} rows of dataset {manifest.name} are no pairs of a chosen and a rejected answer. Build it "
            "with rows='preference' and held-out rows that are pairs, or set pairs to false."
        )
    suite = text_suite(
        manifest, ws, split, fold=fold, max_items=max_items, max_bytes=max_bytes, seq_len=seq_len
    )  # fmt: skip
    return suite.model_copy(
        update={"kind": "chat", "answers": answers, "pairs": pairs, "max_new_tokens": max_new_tokens}
    )


def answer_tokens(manifest: Manifest, *, at_most: int = 256) -> int:
    """Longest answer to decode: no shorter than the longest reference answer of train and dev, up to `at_most` tokens.

    Of a dataset that has neither, of what there is. A token stands for one byte or more, so that bytes bound tokens; an
    unmodified model that never stops is cut there.
    """
    seen = [split for split in manifest.splits if split.name in ("train", "dev")] or manifest.splits
    longest = max((split.max_answer_bytes or 0 for split in seen), default=0)
    return min(at_most, max(LEAST_ANSWER_TOKENS, longest + SPARE_ANSWER_TOKENS))


def suite_of(args: Evaluate, manifest: Manifest, ws: Workspace) -> SuiteSpec:
    """The suite that the arguments name.

    Raises:
        ToolError: the dataset is another one, has no such fold, or has no conversations to answer.
    """
    require_dataset(args.dataset, manifest)
    if args.kind == "chat":
        return chat_suite(
            manifest, ws, args.split, fold=args.fold, answers=args.answers, pairs=args.pairs,
            max_items=args.max_items, max_bytes=args.max_bytes, seq_len=args.seq_len,
            max_new_tokens=args.max_new_tokens,
        )  # fmt: skip
    if args.answers or args.pairs:
        raise ToolError("Texts have nothing to answer: set kind to 'chat', or answers and pairs to false.")
    return text_suite(
        manifest, ws, args.split, fold=args.fold, max_items=args.max_items, max_bytes=args.max_bytes,
        seq_len=args.seq_len,
    )  # fmt: skip


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
    suite = suite_of(args, manifest, ws)
    if not checkpoint.is_dir():
        raise ToolError(f"Job {args.job} has no checkpoint folder {str(checkpoint)!r}. Name a job that finished.")
    return EvaluateSpec(checkpoint=str(checkpoint.resolve()), checkpoint_digest=checkpoint_digest, suite=suite)


def evaluate_model_spec(model: ModelRef, suite: SuiteSpec) -> EvaluateSpec:
    """The job that evaluates a model as it is: the baseline of a fine-tuning."""
    return EvaluateSpec(checkpoint=model.path, checkpoint_digest=model.weights_digest, suite=suite)
