"""Direct preference optimization by TRL's DPOTrainer, as a job.

The reference is the model that training starts from. What it says of the answers is computed once and kept in the run
folder, so that one model is in memory, with adapters or whole, and a resumed run compares with the same bits.
"""

from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, concatenate_datasets
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportPrivateImportUsage]

from nightsmith.model.split_lora import plain_peft
from nightsmith.record.errors import Damaged
from nightsmith.trainer import trl_job
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.preference_rows import PreferenceRows, preference_rows
from nightsmith.trainer.spec import DpoSpec

REFERENCE = "reference.safetensors"
"""In the run folder: the reference's log-probability of each pair's answers, in the order of the rows."""
LOGPS = ("ref_chosen_logps", "ref_rejected_logps")


def run(attempt: Attempt, spec: DpoSpec) -> None:
    """Train on preferences, or go on from the newest whole checkpoint, then evaluate. See `trl_job.run`."""
    trl_job.run(attempt, spec, METHOD)


def _rows(spec: DpoSpec, tokenizer: Any) -> PreferenceRows:
    return preference_rows(spec.data, spec.data_digest, spec.max_len, tokenizer)


def _build(job: trl_job.Job) -> DPOTrainer:
    args = DPOConfig(
        **job.settings,
        beta=job.spec.beta,
        loss_type=[job.spec.loss_type],
        label_smoothing=job.spec.label_smoothing,
        max_length=None,
        precompute_ref_log_probs=True,
        router_aux_loss_coef=0.0,  # TRL would add the architecture's balance term to the loss
    )
    pairs = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in job.rows.pairs]
    return _Trainer(job, model=job.model, args=args, train_dataset=Dataset.from_list(pairs))


class _Trainer(DPOTrainer):
    """DPOTrainer on pairs that are tokenised already, with a reference that outlives the process."""

    def __init__(self, job: trl_job.Job, **kwargs: Any) -> None:
        self._kept, self._resumed = job.attempt.run_dir / REFERENCE, job.resumed
        with plain_peft(job.model):  # TRL adds an adapter, for `_drop_copied_adapter` to drop
            super().__init__(processing_class=job.tokenizer, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:  # noqa: ARG002
        self._drop_copied_adapter()
        if not self._kept.is_file():
            if self._resumed:
                raise Damaged(f"{self._kept} is absent: the run cannot go on without its reference. Start a new one.")
            _write(self._kept, self._reference(dataset, batch_size))
        kept = load_file(self._kept)
        return concatenate_datasets(
            [dataset, Dataset.from_dict({column: kept[column].tolist() for column in LOGPS})], axis=1
        )

    def _drop_copied_adapter(self) -> None:
        """TRL copies fresh adapters as the reference; switched off they are the same model, without the memory."""
        model = cast(Any, self.model)
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")

    def _reference(self, dataset: Dataset, batch_size: int) -> dict[str, Tensor]:
        """The log-probability of every answer under the model as it is before the first step, float32."""
        loader = DataLoader(cast(Any, dataset), batch_size=batch_size, collate_fn=self.data_collator)
        found: list[tuple[Tensor, Tensor]] = []
        model = cast(Any, self.model).eval()
        for batch in loader:
            here = {column: value.to(self.accelerator.device) for column, value in batch.items()}
            found.append(tuple(logps.float().cpu() for logps in self.compute_ref_log_probs(model, here)))  # pyright: ignore[reportArgumentType]
        return {column: torch.cat([pair[side] for pair in found]) for side, column in enumerate(LOGPS)}


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Whole or not at all."""
    aside = path.with_suffix(".tmp")
    save_file(tensors, aside)
    aside.rename(path)


METHOD = trl_job.Method(rows=_rows, build=_build, series=("rewards/", "logps/"))
