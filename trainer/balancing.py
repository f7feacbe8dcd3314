"""Small 4's routers under a trainer that owns the training loop: transformers' Trainer, or any of TRL's."""

from typing import Any

from transformers import TrainerCallback

from nightsmith.model.router import end_step, routers, set_micro_batches


def attach_balancing(trainer: Any) -> None:
    """Let the routers of the trainer's model balance themselves, and nothing else balance them; before `train`.

    Routers bring their own loss into every backward pass. TRL would add a second one for each config that names a
    coefficient, pooled over the layers of one micro-batch, where a starved layer hides.
    """
    if next(routers(trainer.model), None) is None:
        return
    trainer.aux_loss_enabled = False
    trainer.model.config.get_text_config().output_router_logits = False
    trainer.add_callback(Balancing())


class Balancing(TrainerCallback):
    """Tells routers how many micro-batches a step has, and when it ends."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Losses are means over the step's micro-batches."""
        set_micro_batches(model, args.gradient_accumulation_steps)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Biases move by the loads of the step."""
        end_step(model)
