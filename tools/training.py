"""The tool `pretrain`: a recipe as typed arguments, changed by trials, turned into the job that trains it."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from nightsmith.model.presets import BYTE_VOCABULARY, PRESETS, Architecture, BalanceMode, PresetName, balance_mode
from nightsmith.record.workspace import Workspace
from nightsmith.tools.arguments import require_known, validated
from nightsmith.tools.base import ToolArgs, ToolError
from nightsmith.tools.data.manifest import Manifest, require_dataset
from nightsmith.tools.evaluation import text_suite
from nightsmith.trainer.spec import PretrainSpec

Value = float | int | str
SHAPE = ("hidden_size", "num_layers", "num_experts", "top_k", "expert_size", "seq_len", "batch_size")
"""Settings that override the preset's architecture."""


class Pretrain(ToolArgs):
    """Train a Small 4 style mixture-of-experts language model from scratch on a dataset's train split."""

    dataset: str = "$dataset"
    """Digest of a built dataset (12 or 64 digits); `$dataset`: the one that the plan builds."""
    preset: PresetName = "nano"
    """Architecture to start from; nano and micro train on a laptop CPU."""
    hidden_size: int | None = Field(default=None, ge=16, le=16384)
    """Model dimension, a multiple of the number of heads; null: the preset's."""
    num_layers: int | None = Field(default=None, ge=1, le=256)
    """Transformer layers; null: the preset's."""
    num_experts: int | None = Field(default=None, ge=1, le=1024)
    """Routed experts a layer; null: the preset's."""
    top_k: int | None = Field(default=None, ge=1, le=64)
    """Routed experts per token; null: the preset's."""
    expert_size: int | None = Field(default=None, ge=8, le=65536)
    """Hidden dimension of one expert; null: the preset's."""
    seq_len: int | None = Field(default=None, ge=8, le=2**20)
    """Training window in tokens; null: the preset's."""
    batch_size: int | None = Field(default=None, ge=1, le=65536)
    """Sequences per optimizer step; null: the preset's."""
    num_steps: int = Field(default=300, ge=1, le=10**8)
    """Optimizer steps."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon on the matrices of attention and experts, AdamW on all else; wants a higher learning rate."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Peak learning rate of the optimizer."""
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    """Learning-rate schedule after warm-up; `wsd` decays over the last fifth."""
    warmup_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the steps with linear warm-up."""
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    """Weight decay."""
    beta2: float = Field(default=0.95, gt=0, lt=1)
    """AdamW second-moment decay."""
    router_aux_loss_coef: float = Field(default=0.0, ge=0, le=1)
    """Weight of the load-balancing loss."""
    balance_mode: BalanceMode | None = None
    """How the experts are kept evenly used: `none`, `aux` (the loss), `bias` (a selection bias that follows the loads,
    and the loss where its coefficient is above 0); null: `aux` where router_aux_loss_coef is above 0, else `none`."""
    router_z_loss_coef: float = Field(default=0.0, ge=0, le=1)
    """Weight of the z-loss, which keeps the routers' logits small."""
    router_bias_update_rate: float = Field(default=1e-3, gt=0, le=1)
    """Step of the selection bias in `bias` mode, in probability."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seeds initial weights and data order."""

    @model_validator(mode="after")
    def _require_consistent_routing(self) -> Self:
        balance_mode(self.balance_mode, self.router_aux_loss_coef)
        return self


SETTINGS = tuple(name for name in Pretrain.model_fields if name not in ("dataset", "preset"))
"""Settings that a trial may change."""


def architecture(args: Pretrain) -> Architecture:
    """The preset with its overrides.

    Raises:
        ToolError: the shape cannot be built; says which setting mends it.
    """
    given = {name: value for name in SHAPE if (value := getattr(args, name)) is not None}
    shape = PRESETS[args.preset].model_copy(update=given)
    if shape.top_k > shape.num_experts:
        raise ToolError(
            f"top_k {shape.top_k} is above num_experts {shape.num_experts}: a token cannot go to more experts "
            f"than there are. Set top_k to at most {shape.num_experts}, or num_experts to at least {shape.top_k}."
        )
    if shape.hidden_size % shape.num_heads:
        down = shape.hidden_size // shape.num_heads * shape.num_heads
        allowed = " or ".join(str(size) for size in (down, down + shape.num_heads) if size)
        raise ToolError(
            f"hidden_size {shape.hidden_size} is not divisible by the {shape.num_heads} heads of {args.preset!r}. "
            f"Set it to {allowed}."
        )
    if shape.vocab_size != BYTE_VOCABULARY:
        raise ToolError(
            f"Preset {args.preset!r} has a vocabulary of {shape.vocab_size} tokens; training from scratch reads bytes "
            f"({BYTE_VOCABULARY} tokens). Use nano, micro or mini."
        )
    return shape


def recipe(args: Pretrain) -> dict[str, Value]:
    """Every setting with the value that is really used: overrides, else the preset's, else the default.

    A balance mode that is not named stays unnamed: it follows from the coefficient, which trials may change.
    """
    shape = architecture(args)
    settings: dict[str, Value | None] = {name: getattr(shape if name in SHAPE else args, name) for name in SETTINGS}
    return {name: value for name, value in settings.items() if value is not None}


def num_tokens(args: Pretrain) -> int:
    """Tokens that the recipe trains on."""
    shape = architecture(args)
    return args.num_steps * shape.batch_size * shape.seq_len


def apply_change(args: Pretrain, change: Mapping[str, Value]) -> Pretrain:
    """Change some settings of a recipe.

    Training tokens stay the same: a change of batch_size or seq_len without one of num_steps scales num_steps, so that
    trials are compared at equal tokens.

    Raises:
        ToolError: no such setting (with near names), a value out of range, or a shape that cannot be built.
    """
    require_known(change, SETTINGS, what="setting")
    changed = validated(Pretrain, {**args.model_dump(), **change}, what="The change")
    shape = architecture(changed)
    if "num_steps" in change or not change.keys() & {"batch_size", "seq_len"}:
        return changed
    steps = max(1, round(num_tokens(args) / (shape.batch_size * shape.seq_len)))
    return changed.model_copy(update={"num_steps": steps})


def pretrain_spec(
    args: Pretrain, manifest: Manifest, ws: Workspace, *, dev_items: int = 256, dev_bytes: int = 2048,
    checkpoint_every_s: float = 30.0,
) -> PretrainSpec:  # fmt: skip
    """The job that trains a recipe on a dataset and evaluates it on the dataset's dev split.

    The dev window is the preset's, whatever the recipe's own `seq_len`: trials of one study share one suite.

    Args:
        args: the recipe.
        manifest: the dataset; must be the one that `args.dataset` names, unless that is `$dataset`.
        ws: workspace that it is published in.
        dev_items: items of the dev split that are scored, at most.
        dev_bytes: bytes scored per item.
        checkpoint_every_s: seconds between checkpoints.

    Raises:
        ToolError: the shape cannot be built, or the dataset is another one.
    """
    require_dataset(args.dataset, manifest)
    window = PRESETS[args.preset].seq_len
    suite = text_suite(manifest, ws, "dev", max_items=dev_items, max_bytes=dev_bytes, seq_len=window)
    return PretrainSpec(
        architecture=architecture(args), data=str(manifest.path(ws, "train")),
        data_digest=manifest.split("train").data_digest,
        num_steps=args.num_steps, optimizer=args.optimizer, learning_rate=args.learning_rate, schedule=args.schedule,
        warmup_share=args.warmup_share, weight_decay=args.weight_decay, beta2=args.beta2,
        router_aux_loss_coef=args.router_aux_loss_coef, balance_mode=args.balance_mode,
        router_z_loss_coef=args.router_z_loss_coef, router_bias_update_rate=args.router_bias_update_rate,
        seed=args.seed, checkpoint_every_s=checkpoint_every_s,
        dev_suite=suite,
    )  # fmt: skip
