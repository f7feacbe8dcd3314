"""Small 4's chat in TRL itself: answers alone are trained, and tools are called in reinforcement learning."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from nightsmith.model.chat import training_template
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build
from nightsmith.model.small4_tokenizer import VOCABULARY, small4_tokenizer

torch.set_num_threads(1)
NANO = PRESETS["nano"].model_copy(update={"vocab_size": VOCABULARY})
QUIET: dict[str, Any] = {
    "per_device_train_batch_size": 2, "max_steps": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True,
    "bf16": False, "disable_tqdm": True,
}  # fmt: skip


@pytest.mark.slow
def test_assistant_only_loss_trains_answers_and_their_ends(tmp_path: Path) -> None:
    tokenizer = small4_tokenizer()
    tokenizer.chat_template = training_template()
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    trainer = SFTTrainer(
        model=build(NANO, seed=0),
        args=SFTConfig(output_dir=str(tmp_path), assistant_only_loss=True, **QUIET),
        train_dataset=Dataset.from_list([{"messages": messages}] * 2),
        processing_class=tokenizer,
    )
    labels = next(iter(trainer.get_train_dataloader()))["labels"][0]
    assert tokenizer.decode(labels[labels != -100]) == '[TOOL_CALLS]add[ARGS]{"a": 1}</s>It is 3.</s>'
    assert trainer.train().training_loss > 0


@pytest.mark.slow
def test_reinforcement_learning_makes_the_calls_that_the_model_writes(tmp_path: Path) -> None:
    """The output layer is set so that the model can write one call only: what then runs is TRL's own tool loop."""
    called: list[int] = []

    def add(a: int) -> int:
        """Add.

        Args:
            a: A number.
        """
        called.append(a)
        return a + 1

    tokenizer = small4_tokenizer()
    trainer = GRPOTrainer(
        model=writing(tokenizer, '[TOOL_CALLS]add[ARGS]{"a": 41}</s>'),
        args=GRPOConfig(output_dir=str(tmp_path), num_generations=2, max_completion_length=48,
                        max_tool_calling_iterations=1, **QUIET),
        reward_funcs=lambda completions, **_: [float(len(completion)) for completion in completions],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "go"}]}] * 2),
        processing_class=tokenizer,
        tools=[add],
    )  # fmt: skip
    trainer.train()
    assert called
    assert set(called) == {41}


def writing(tokenizer: Any, text: str) -> Any:
    """A model that writes this text, whatever it is asked: each token makes the next one certain."""
    model: Any = build(NANO.model_copy(update={"hidden_size": 64}), seed=0)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(set(ids)) == len(ids)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
            layer.mlp.shared_experts.down_proj.weight.zero_()
        embedding, output = model.model.embed_tokens.weight, model.lm_head.weight
        output.zero_()
        for before, after in zip([tokenizer.convert_tokens_to_ids("[/INST]"), *ids[:-1]], ids, strict=True):
            output[after] += 100 * embedding[before] / embedding[before].norm()
    return model
