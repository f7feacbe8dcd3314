"""Reinforcement learning of a causal language model by TRL's GRPOTrainer, as a job.

Prompts are rendered by `grpo_rows` and scored by `evals.scoring`. Answers are drawn from a generator that is a function
of seed and step, so that a run which was killed draws the same ones again from its last generation boundary.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]
from trl.trainer.utils import add_fused_lm_head

from nightsmith.model.load import load
from nightsmith.record.digest import sha256
from nightsmith.trainer import trl_job
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.grpo_rewards import Rewarding
from nightsmith.trainer.grpo_rows import PromptRows, order, prompt_rows
from nightsmith.trainer.grpo_spec import GrpoSpec
from nightsmith.trainer.grpo_watch import MonitorWatch

SERIES = (
    "reward", "rewards/", "verifier/", "completions/", "entropy", "kl", "clip_ratio/", "frac_reward_zero_std",
    "sampling/", "step_time",
)  # fmt: skip
"""TRL's figures that are kept."""


def run(attempt: Attempt, spec: GrpoSpec) -> None:
    """Train, or go on from the newest whole checkpoint, then evaluate. See `trl_job.run`.

    Raises:
        Ended: also by a monitor, with the evidence in the run folder (`grpo_watch`).
    """
    with Rewarding(spec, attempt.journal) as rewarding:
        method = trl_job.Method(
            rows=prompt_rows,
            build=lambda job: _build(job, rewarding),
            series=SERIES,
            boundary=lambda each: each.boundary,
        )
        trl_job.run(attempt, spec, method)


class PolicyTrainer(GRPOTrainer):
    """TRL's trainer on our prompts: rendered beforehand, and answered by a generator of seed and step."""

    rows: PromptRows

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Ids of the prompts with these row ids; no images, nothing multimodal."""
        return [list(self.rows.prompts[row_id].ids) for row_id in prompts], None, {}

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        set_seed(int(sha256(f"{self.args.seed}/{self.state.global_step}")[:8], 16))
        return super()._generate_and_score_completions(inputs)


def settings(spec: GrpoSpec, shared: dict[str, Any]) -> dict[str, Any]:
    """Arguments of GRPOConfig."""
    served = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": spec.vllm_url} if spec.vllm_url else {}
    return {
        **shared,
        **served,
        "bf16": shared["bf16"] and not shared["use_cpu"],
        "per_device_train_batch_size": spec.batch_size * spec.num_generations,
        **{name: getattr(spec, name) for name in TAKEN_OVER},
        "reward_weights": [reward.weight for reward in spec.rewards],
        "include_num_input_tokens_seen": "no",  # TRL counts prompts and answers itself
        "shuffle_dataset": False,
        "disable_dropout": True,
        "router_aux_loss_coef": 0.0,
    }


TAKEN_OVER = (
    "num_generations", "max_completion_length", "temperature", "top_p", "loss_type", "importance_sampling_level",
    "scale_rewards", "epsilon", "epsilon_high", "steps_per_generation", "num_iterations", "mask_truncated_completions",
)  # fmt: skip
"""Settings that have TRL's names."""


def _build(job: trl_job.Job, rewarding: Rewarding) -> PolicyTrainer:
    spec: GrpoSpec = job.spec
    rows: PromptRows = job.rows
    rewarding.rows = rows
    job.model.generation_config.eos_token_id = list(rows.chat.stop_ids)
    trainer = PolicyTrainer(
        model=job.model,
        reward_funcs=rewarding.functions(),
        args=GRPOConfig(**settings(spec, job.settings)),
        train_dataset=Dataset.from_dict({"prompt": order(rows, spec.num_prompts, spec.seed)}),
        processing_class=job.tokenizer,
    )
    trainer.rows = rows
    if spec.beta:
        _hold_to_base(trainer, spec)
    trainer.add_callback(MonitorWatch(job, rewarding))
    return trainer


def _hold_to_base(trainer: PolicyTrainer, spec: GrpoSpec) -> None:
    """Give the trainer its reference: the model that was started from, by our loader; with LoRA, adapters are off."""
    trainer.beta = spec.beta
    if spec.adaptation == "lora":
        return
    reference = load(Path(spec.model.path))
    add_fused_lm_head(reference, temperature=spec.temperature)
    trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)
