"""From-scratch pre-training: a compact loop whose every step is a function of the spec.

Equal spec and thread count give bit-equal weights on a CPU, whether the run was interrupted or not. Where several
processes train (`spec.parallel`), each runs this loop on its part.

B windows of a batch, L window length, V vocabulary.
"""

import math
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nightsmith.model import arithmetic
from nightsmith.model.files import weights_digest
from nightsmith.model.head import cross_entropy
from nightsmith.model.health import Recent, worst
from nightsmith.model.load import load, load_weights
from nightsmith.model.presets import BOS
from nightsmith.model.router import routers, set_micro_batches
from nightsmith.model.small4 import build
from nightsmith.trainer import checkpoint
from nightsmith.trainer.attempt import Attempt, Ended
from nightsmith.trainer.device import set_up_torch
from nightsmith.trainer.evaluate import evaluate_model
from nightsmith.trainer.losses import LOSS_TAIL, not_finite, tail_mean
from nightsmith.trainer.mesh import Mesh, parts_of
from nightsmith.trainer.optimizers import hidden_matrices, make_optimizer
from nightsmith.trainer.schedule import learning_rate
from nightsmith.trainer.spec import PretrainSpec, RunStatus
from nightsmith.trainer.text import Windows, read_tokens

EVENT_EVERY_S = 1.0


def run(attempt: Attempt, spec: PretrainSpec) -> None:
    """Train to the end of the spec, or go on from the newest checkpoint, then evaluate. Fills `attempt.facts`.

    Raises:
        Ended: asked to end (a checkpoint to go on from is on disk), or the loss is not finite.
    """
    attempt.phase("data")
    architecture = spec.architecture
    tokens = read_tokens(Path(spec.data), spec.data_digest)
    windows = Windows(tokens, architecture.seq_len, architecture.batch_size, spec.seed)
    attempt.phase("build")
    training = Pretraining(attempt, spec, windows)
    attempt.phase("train")
    training.train()
    whole = training.leave()
    if spec.dev_suite is not None and whole is not None:
        evaluate_model(attempt, whole, spec.dev_suite)


class Pretraining:
    """Model, optimizer and state of one run."""

    def __init__(self, attempt: Attempt, spec: PretrainSpec, windows: Windows) -> None:
        """Build the model and, where the run folder has a whole checkpoint, restore it."""
        self._device = set_up_torch(attempt)
        self._attempt, self._spec, self._windows = attempt, spec, windows
        self._step_tokens = spec.architecture.batch_size * spec.architecture.seq_len
        self._mesh = Mesh(spec.parallel, self._device)
        model: Any = build(spec.architecture, seed=spec.seed, **spec.routing)
        self._state = checkpoint.TrainState(initial_digest=checkpoint.model_digest(model))
        found = checkpoint.latest(attempt.run_dir)
        if found is not None:
            load_weights(model, found)
        self.model: Any = self._mesh.shard(model.to(self._device))
        whole = spec.architecture.batch_size
        set_micro_batches(self.model, whole // (attempt.micro_batch_size or whole))
        self._arithmetic = arithmetic.choose(self.model, self._device, spec.precision)
        attempt.journal.write("arithmetic", **vars(self._arithmetic))
        self._parts, self._routers = parts_of(self.model), list(routers(self.model))
        self._optimizer = make_optimizer(
            (part.mine for part in self._parts), spec, hidden_matrices(self.model, self._parts)
        )
        if found is not None:
            self._state = checkpoint.restore(found, self._optimizer, self._parts)
        self._experts = Recent(max(1, round(LOSS_TAIL * spec.num_steps)))
        self._saved_step = None if found is None else self._state.step
        self._first_step = self._state.step
        self._save_at = time.monotonic() + spec.checkpoint_every_s
        self._note_progress()

    def train(self) -> None:
        """Steps until the spec's number is done; checkpoints by the clock, on being asked to end, and at the end."""
        with self.computing():
            self._train()

    def _train(self) -> None:
        event_at = 0.0
        while self._state.step < self._spec.num_steps:
            ends, saves = self.step()
            self._note_progress()
            now = time.monotonic()
            if now >= event_at:
                self._write_event()
                event_at = now + EVENT_EVERY_S
            if saves or ends:
                self._save()
            if ends:
                self._attempt.end()
        self._write_event()
        self._save()

    def leave(self) -> Any | None:
        """The whole trained model, on the rank that has it; the ranks part. To be called once trained."""
        if self._mesh.is_alone:
            return self.model
        self._mesh.leave()
        saved = self._attempt.facts.checkpoint
        return None if saved is None else load(saved).to(self._device)

    @property
    def products(self) -> str:
        """In what matrix products are computed."""
        return self._arithmetic.products

    @property
    def losses(self) -> list[float]:
        """Loss of each step so far, nats per token."""
        return self._state.losses

    def computing(self) -> AbstractContextManager[None]:
        """Inside, the model computes as it does in training."""
        return self._arithmetic.applied(self.model.train())

    def step(self) -> tuple[bool, bool]:
        """One optimizer step. Returns whether the run has to end after it, and whether it is time for a checkpoint.

        Raises Ended before the weights could take a value that is not finite.
        """
        started, step, spec = time.perf_counter(), self._state.step, self._spec
        batch_BL = self._mesh.rows(torch.from_numpy(self._windows.batch(step))).to(self._device)
        loss, norm, (ends, saves) = self._mesh.agree(
            self._backward(batch_BL),
            self._norm(),
            self._attempt.ending() is not None,
            self._mesh.is_first and time.monotonic() >= self._save_at,
        )
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise Ended(RunStatus.NOT_FINITE, not_finite(spec, step, loss, norm))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(spec, step)
        if norm > spec.grad_clip:
            nn.utils.clip_grads_with_norm_([part.mine for part in self._parts], spec.grad_clip, torch.tensor(norm))
        self._optimizer.step()
        for part in self._parts:
            part.whole.grad = part.mine.grad = None
        for router in self._routers:
            router.end_step()
        self._state.losses.append(loss)
        self._state.step += 1
        self._state.train_s += time.perf_counter() - started
        return ends, saves

    def _norm(self) -> Tensor:
        self._mesh.share_gradients(self._parts)
        return self._mesh.total_norm(self._parts)

    def _backward(self, batch_BL: Tensor) -> Tensor:
        """Add up the gradients of the mean loss, one micro-batch after the other. Returns that loss."""
        parts = batch_BL.split(self._attempt.micro_batch_size or len(batch_BL))
        losses: list[Tensor] = []
        for part_BL in parts:
            with self._arithmetic.autocast():
                loss = next_token_loss(self.model, part_BL, separate_documents=self._spec.separate_documents)
            if len(parts) > 1:
                loss = loss / len(parts)
            loss.backward()
            losses.append(loss.detach())
        return sum(losses[1:], losses[0])

    def _note_progress(self) -> None:
        facts, state = self._attempt.facts, self._state
        facts.initial_digest = state.initial_digest
        facts.num_steps, facts.num_tokens = state.step, state.step * self._step_tokens
        facts.train_s = state.train_s
        facts.metrics.update(state.experts)
        if state.losses:
            facts.metrics["train/loss"] = tail_mean(state.losses)
            facts.metrics["time/tokens_per_s"] = facts.num_tokens / state.train_s

    def _write_event(self) -> None:
        state, facts, num_steps = self._state, self._attempt.facts, self._spec.num_steps
        health = self._experts.take(self.model, state.step)
        if health:
            state.experts = worst(self._experts.health())
            self._note_progress()
        self._attempt.journal.write(
            "step",
            step=state.step,
            num_steps=num_steps,
            loss=state.losses[-1] if state.losses else None,
            learning_rate=learning_rate(self._spec, max(0, state.step - 1)),
            tokens_per_s=facts.metrics.get("time/tokens_per_s"),
            eta_s=(num_steps - state.step) * state.train_s / state.step if state.step else None,
            attempt_tokens=(state.step - self._first_step) * self._step_tokens,
            router=[vars(layer) for layer in health],
        )

    def _save(self) -> None:
        """Checkpoint, unless this very step is on disk already."""
        facts, started, first = self._attempt.facts, time.monotonic(), self._mesh.is_first
        if self._saved_step != self._state.step:
            checkpoint.save(
                self._attempt.run_dir, self.model, self._optimizer, self._state, parts=self._parts, writes=first
            )
            self._saved_step = self._state.step
        if first:
            facts.checkpoint = checkpoint.folder(self._attempt.run_dir, self._state.step)
            facts.checkpoint_digest = weights_digest(facts.checkpoint)
        spent = time.monotonic() - started
        facts.metrics["time/checkpoint_s"] = facts.metrics.get("time/checkpoint_s", 0.0) + spent
        self._attempt.journal.write("checkpoint", step=self._state.step, wall_s=spent)
        self._save_at = time.monotonic() + self._spec.checkpoint_every_s


def next_token_loss(model: Any, batch_BL: Tensor, *, separate_documents: bool = False) -> Tensor:
    """Mean cross-entropy, in nats per token, of each token of the windows (B, L + 1) but the first.

    `separate_documents`: a token sees those of its own document only.
    """
    inputs_BL = batch_BL[:, :-1]
    mask_B1LL = visible_keys(inputs_BL) if separate_documents else None
    return cross_entropy(model, inputs_BL, batch_BL[:, 1:], mask_B1LL)


def visible_keys(tokens_BL: Tensor) -> Tensor:
    """Which tokens each token sees, (B, 1, L, L): those before it and itself, back to the BOS of its document."""
    document_BL = (tokens_BL == BOS).cumsum(1)
    return (document_BL[:, :, None] == document_BL[:, None, :]).tril()[:, None]
