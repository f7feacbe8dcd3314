"""Fine-tuning of an existing causal language model by TRL's SFTTrainer, as a job.

Rows are tokenised and masked by `sft_rows`; TRL steps and computes the loss on labels.
"""

from datasets import Dataset
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from nightsmith.trainer import trl_job
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.sft_rows import training_rows
from nightsmith.trainer.spec import SftSpec


def run(attempt: Attempt, spec: SftSpec) -> None:
    """Fine-tune, or go on from the newest whole checkpoint, then evaluate. See `trl_job.run`."""
    trl_job.run(attempt, spec, METHOD if spec.backend == "trl" else _fused())


def _fused() -> trl_job.Method:
    from nightsmith.trainer import fused

    return fused.METHOD


def _build(job: trl_job.Job) -> SFTTrainer:
    args = SFTConfig(
        **job.settings,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        router_aux_loss_coef=0.0,  # TRL would add the architecture's balance term (GPT-OSS: 0.9) to the loss
    )
    rows = Dataset.from_dict({"input_ids": list(job.rows.ids), "labels": list(job.rows.labels)})
    return SFTTrainer(model=job.model, args=args, train_dataset=rows, processing_class=job.tokenizer)


METHOD = trl_job.Method(rows=training_rows, build=_build)
