"""Training of a reward model by TRL's RewardTrainer, as a job: a score for a conversation, at its last token.

The final folder is read by `model.load.load_reward_model`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl import RewardConfig, RewardTrainer  # pyright: ignore[reportPrivateImportUsage]

from nightsmith.model.load import load_reward_model, load_tokenizer
from nightsmith.trainer import trl_job
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.device import set_up_torch
from nightsmith.trainer.preference_rows import Pair, PreferenceRows, preference_rows
from nightsmith.trainer.spec import RewardSpec

SERIES = ("accuracy", "margin", "mean_reward", "min_reward", "max_reward")


def run(attempt: Attempt, spec: RewardSpec) -> None:
    """Train a reward model, or go on from the newest whole checkpoint, then measure it. See `trl_job.run`."""
    trl_job.run(attempt, spec, METHOD)


def _rows(spec: RewardSpec, tokenizer: Any) -> PreferenceRows:
    return preference_rows(spec.data, spec.data_digest, spec.max_len, tokenizer)


def _load(checkpoint: Path, spec: RewardSpec) -> Any:
    return load_reward_model(checkpoint, seed=spec.seed)


def _build(job: trl_job.Job) -> RewardTrainer:
    args = RewardConfig(**job.settings, max_length=None, center_rewards_coefficient=job.spec.center_rewards_coefficient)
    pairs = [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in job.rows.pairs]
    return RewardTrainer(
        model=job.model, args=args, train_dataset=Dataset.from_list(pairs), processing_class=job.tokenizer
    )


def _finish(attempt: Attempt, spec: RewardSpec, final: Path) -> None:
    """Accuracy and mean margin on pairs that were not trained on."""
    if spec.held_out is None or spec.held_out_digest is None:
        return
    attempt.phase("evaluate")
    tokenizer = load_tokenizer(final)
    pairs = preference_rows(spec.held_out, spec.held_out_digest, spec.max_len, tokenizer).pairs
    model = load_reward_model(final).to(set_up_torch(attempt))
    margins = torch.cat(list(_margins(attempt, model, pairs, spec.batch_size)))
    attempt.facts.metrics |= {
        "eval/accuracy": (margins > 0).float().mean().item(),
        "eval/margin": margins.mean().item(),
        "eval/pairs": float(len(pairs)),
    }


def _margins(attempt: Attempt, model: Any, pairs: Sequence[Pair], batch_size: int) -> Iterator[Tensor]:
    """Score of the chosen answer less that of the rejected one, a tensor for each batch of pairs."""
    for start in range(0, len(pairs), batch_size):
        attempt.end_if_asked()
        batch = pairs[start : start + batch_size]
        yield score(model, [p.prompt + p.chosen for p in batch]) - score(model, [p.prompt + p.rejected for p in batch])
        attempt.journal.write("evaluate", done=start + len(batch), total=len(pairs))


@torch.inference_mode()
def score(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """What a reward model gives each row of token ids, (rows,), float32 on the CPU."""
    ids = [torch.tensor(row, device=model.device) for row in rows]
    padding = model.config.get_text_config().pad_token_id
    ids_BL = pad_sequence(ids, batch_first=True, padding_value=padding)
    mask_BL = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False).logits[:, 0].float().cpu()


METHOD = trl_job.Method(rows=_rows, build=_build, series=SERIES, load=_load, task="SEQ_CLS", finish=_finish)
