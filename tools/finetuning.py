"""The tool `sft`: fine-tuning as typed arguments, changed by trials, turned into the job that trains it."""

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar

from pydantic import Field

from nightsmith.evals.types import SuiteSpec
from nightsmith.record.workspace import Workspace
from nightsmith.tools.arguments import require_known, validated
from nightsmith.tools.base import ToolArgs, ToolError
from nightsmith.tools.data.manifest import Manifest, require_dataset
from nightsmith.trainer.spec import ModelRef, SftSpec

Value = float | int | str
LEARNING_RATES = {"full": 5e-5, "lora": 5e-4}
"""Peak learning rates for models of some hundred million weights.

TRL's defaults for models of billions are 2e-5 (`SFTConfig`) and 2e-4 with LoRA (`trl/scripts/sft.py`). SmolLM2's own
fine-tuning of 135M and 360M used 1e-3 on large batches (alignment-handbook, `recipes/smollm2/sft/config_smol.yaml`), so
small models take more. LoRA wants about ten times the rate of full fine-tuning ("LoRA Without Regret", 2025).
"""
ONLY_LORA = ("lora_rank", "lora_alpha")
"""Settings without meaning where every weight is trained."""


AnyTuning = TypeVar("AnyTuning", bound="Tuning")


class Tuning(ToolArgs):
    """What every training of an existing model is told, whatever the method."""

    default_rates: ClassVar[Mapping[str, float]] = LEARNING_RATES
    """Adaptation -> peak learning rate where none is asked for."""

    dataset: str = "$dataset"
    """Digest of a built dataset (12 or 64 digits); `$dataset`: the one that the plan builds."""
    model: str = Field(default="$previous", min_length=1)
    """Name or folder of the model to start from; `$previous`: the checkpoint of the stage before."""
    adaptation: Literal["lora", "full"] = "lora"
    """`lora`: adapters on all linear layers; `full`: every weight."""
    lora_rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the adapters."""
    lora_alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank; a change of the rank alone keeps that ratio."""
    max_len: int = Field(default=512, ge=8, le=2**20)
    """Longest row in tokens. Conversations that are longer are left out and counted; texts are cut."""
    batch_size: int = Field(default=8, ge=1, le=65536)
    """Rows per optimizer step."""
    num_steps: int = Field(default=200, ge=1, le=10**8)
    """Optimizer steps."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of AdamW; null: the method's default for the adaptation."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Learning-rate schedule after warm-up."""
    warmup_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the steps with linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """AdamW weight decay."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seeds adapters, dropout and data order."""


class Sft(Tuning):
    """Fine-tune an existing language model on a dataset's train split: conversations, or plain texts."""

    rows: Literal["chat", "text"] = "chat"
    """`chat`: only assistant turns are trained; `text`: every token is (continued pre-training)."""
    backend: Literal["trl", "fused"] = "trl"
    """What trains; `fused`: LoRA of a Llama on CPUs, faster."""
    first_layer: int = Field(default=0, ge=0)
    """Layers below it carry no adapters; by backend `fused` only."""
    lead_tokens: int = Field(default=0, ge=0)
    """First tokens of each answer that count `lead_weight` times; by backend `fused` only."""
    lead_weight: float = Field(default=1.0, gt=0)
    """Weight of those tokens in the loss; the others count once."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of AdamW; null: 5e-4 with LoRA, 5e-5 for every weight."""


NOT_CHANGED = (
    "dataset", "model", "rows", "reward", "reward_file", "backend", "first_layer", "lead_tokens", "lead_weight",
)  # fmt: skip
"""Arguments that say what is trained, on what, by what."""


def settings_of(kind: type[Tuning]) -> tuple[str, ...]:
    """Settings of a method that a trial may change."""
    return tuple(name for name in kind.model_fields if name not in NOT_CHANGED)


SETTINGS = settings_of(Sft)
"""Settings of fine-tuning that a trial may change."""


def learning_rate(args: Tuning) -> float:
    """The rate that was asked for, else the method's default for the adaptation."""
    return args.default_rates[args.adaptation] if args.learning_rate is None else args.learning_rate


def recipe(args: Tuning) -> dict[str, Value]:
    """Every setting that has a meaning, with the value that is really used."""
    given: dict[str, Value | None] = {name: getattr(args, name) for name in settings_of(type(args))}
    given["learning_rate"] = learning_rate(args)
    settings = {name: value for name, value in given.items() if value is not None}
    if args.adaptation == "full":
        return {name: value for name, value in settings.items() if name not in ONLY_LORA}
    return settings


def num_rows(args: Tuning) -> int:
    """Rows that the recipe trains on, repetitions counted."""
    return args.num_steps * args.batch_size


def apply_change(args: AnyTuning, change: Mapping[str, Value]) -> AnyTuning:
    """Change some settings of a recipe.

    What follows from a setting follows its change, unless it is changed too: `num_steps` scales with `batch_size` so
    that equal rows are trained, `lora_alpha` with `lora_rank`, and another adaptation starts from its own default rate.

    Raises:
        ToolError: no such setting (with near names), a value out of range, or one without meaning for the adaptation.
    """
    require_known(change, settings_of(type(args)), what="setting")
    changed = validated(type(args), {**args.model_dump(), **change}, what="The change")
    if changed.adaptation == "full" and (idle := [name for name in ONLY_LORA if name in change]):
        raise ToolError(f"{idle[0]!r} has no meaning where every weight is trained. Set adaptation to 'lora' with it.")
    follows: dict[str, Value | None] = {}
    if "num_steps" not in change:
        follows["num_steps"] = max(1, round(num_rows(args) / changed.batch_size))
    if "lora_alpha" not in change:
        follows["lora_alpha"] = args.lora_alpha * changed.lora_rank / args.lora_rank
    if "learning_rate" not in change and changed.adaptation != args.adaptation:
        follows["learning_rate"] = None
    return validated(type(args), {**changed.model_dump(), **follows}, what="The change")


def sft_spec(
    args: Sft, manifest: Manifest, ws: Workspace, *, model: ModelRef, suite: SuiteSpec | None,
    checkpoint_every_s: float = 60.0,
) -> SftSpec:  # fmt: skip
    """The job that fine-tunes a model on a dataset's train split.

    Args:
        args: the recipe.
        manifest: the dataset; must be the one that `args.dataset` names, unless that is `$dataset`.
        ws: workspace that it is published in.
        model: the folder that `args.model` stands for, with the digest of its weights.
        suite: evaluated after the last step; None: the job is not evaluated.
        checkpoint_every_s: seconds between checkpoints.

    Raises:
        ToolError: the dataset is another one, or conversations are asked of rows that are texts.
    """
    require_dataset(args.dataset, manifest)
    if args.rows == "chat" and manifest.rows == "text":
        raise ToolError(
            f"Dataset {manifest.name} has rows of text, no conversations. Build it with rows='chat', or set rows to "
            "'text' to train every token."
        )
    return SftSpec(
        model=model, rows=args.rows, backend=args.backend, first_layer=args.first_layer, lead_tokens=args.lead_tokens,
        lead_weight=args.lead_weight, data=str(manifest.path(ws, "train")),
        data_digest=manifest.split("train").data_digest, adaptation=args.adaptation, lora_rank=args.lora_rank,
        lora_alpha=args.lora_alpha, max_len=args.max_len, batch_size=args.batch_size, num_steps=args.num_steps,
        learning_rate=learning_rate(args), schedule=args.schedule, warmup_share=args.warmup_share,
        weight_decay=args.weight_decay, seed=args.seed, checkpoint_every_s=checkpoint_every_s, dev_suite=suite,
    )  # fmt: skip
