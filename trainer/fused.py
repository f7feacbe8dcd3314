"""LoRA of a Llama on CPUs by fused layers (`model.lora_llama`), as an `sft` job under transformers' Trainer.

The rows of a step are alike in kind and length, and what all of them begin with is computed once. All but adapters,
optimizer and loss is bfloat16.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments

from nightsmith.model.lora import Adapted
from nightsmith.model.lora_kernels import Kernels
from nightsmith.model.lora_llama import PROJECTIONS, Batch, LoraLlama, LoraShape
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer import trl_job
from nightsmith.trainer.adapter_rows import Lead, Row, batch_order, collate, family_prefix_lens, shared
from nightsmith.trainer.sft_rows import training_rows
from nightsmith.trainer.spec import SftSpec

PLAIN = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""What a model's config must say: the arithmetic that `lora_llama` does."""

Inputs = dict[str, Tensor]


class Steps(Dataset[Inputs]):
    """The batch of every step, a function of rows and spec alone; item i is step i."""

    def __init__(self, rows: Sequence[Row], spec: SftSpec) -> None:
        """Fix which rows each step has."""
        self._rows, self._lead = rows, Lead(spec.lead_tokens, spec.lead_weight)
        self._order = list(batch_order(rows, spec.batch_size, spec.num_steps, spec.seed))
        self._prefix_lens = family_prefix_lens(rows)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, step: int) -> Inputs:
        picked = [self._rows[i] for i in self._order[step]]
        batch = collate(picked, shared(picked, self._prefix_lens), lead=self._lead)
        longest = max(map(len, picked))
        # The Trainer counts by the mask the tokens that were read, those that the rows share in each of them.
        mask_NS = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in picked])
        return {**vars(batch), "input_ids": batch.ids_NL, "attention_mask": mask_NS}


class FusedTrainer(Trainer):
    """transformers' Trainer on batches that are whole steps already."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        steps: Any = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(steps)

    def compute_loss(self, model: Any, inputs: Inputs, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        """Weighted mean over the tokens that are trained, in nats."""
        batch = Batch(**{name: inputs[name] for name in Batch.__dataclass_fields__})
        return model(batch) / inputs["weights_NL"].sum()


def _build(job: trl_job.Job) -> FusedTrainer:
    own = {"bf16": False, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    args = TrainingArguments(**job.settings | own, remove_unused_columns=False)
    rows = [Row(tuple(ids), tuple(labels)) for ids, labels in zip(job.rows.ids, job.rows.labels, strict=True)]
    return FusedTrainer(
        model=job.model, args=args, train_dataset=Steps(rows, job.spec), data_collator=lambda steps: steps[0]
    )


def _with_adapters(model: Any, spec: SftSpec, task: str) -> LoraLlama:  # noqa: ARG001
    """The model's weights under fused layers, with fresh adapters. Raises NightsmithError for another architecture."""
    _require_plain(model.config, spec)
    torch.manual_seed(spec.seed)
    shape = LoraShape(spec.lora_rank, spec.lora_alpha, spec.first_layer)
    return LoraLlama(model.config, model.state_dict(), shape, Kernels())


def _require_plain(config: Any, spec: SftSpec) -> None:
    told = {name: getattr(config, name, None) for name in PLAIN}
    rope = config.get_text_config().rope_parameters.get("rope_type") if told["model_type"] == "llama" else "default"
    unlike = [f"{name} {value!r}" for name, value in told.items() if value != PLAIN[name]]
    unlike += [] if rope == "default" else [f"rope_type {rope!r}"]
    if unlike:
        raise NightsmithError(
            f"Backend 'fused' trains plain Llamas; {Path(spec.model.path).name} has {', '.join(unlike)}. Set backend "
            "to 'trl'."
        )
    if spec.first_layer >= config.num_hidden_layers:
        raise NightsmithError(
            f"first_layer {spec.first_layer} leaves nothing to train: the model has {config.num_hidden_layers} layers. "
            f"Set it to at most {config.num_hidden_layers - 1}."
        )


def _describe(model: LoraLlama) -> Adapted:
    num_trained = sum(weight.numel() for weight in model.parameters())
    modules = tuple(sorted(f"{'mlp' if n in PROJECTIONS[4:] else 'self_attn'}.{n}" for n in PROJECTIONS))
    return Adapted(modules, num_trained, num_trained + model.num_frozen)


METHOD = trl_job.Method(rows=training_rows, build=_build, adapters=_with_adapters, describe=_describe)
