"""Optimizers of pre-training: AdamW, or Muon on the matrices that it is made for and AdamW on all else.

E experts, A rows and B columns of a matrix.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import _muon as published

from nightsmith.trainer.mesh import Part
from nightsmith.trainer.spec import PretrainSpec

MOMENTUM = 0.95
RMS_OF_ADAMW = 0.2
"""Root mean square of AdamW's updates at a rate of 1, about."""


def make_optimizer(
    parameters: Iterable[Tensor], spec: PretrainSpec, hidden: Sequence[Tensor] = ()
) -> torch.optim.Optimizer:
    """The spec's optimizer. Matrices decay, vectors do not; its learning rate is set before every step.

    Args:
        parameters: all that is trained.
        spec: optimizer, rates and decay.
        hidden: those of the parameters that Muon takes, where it is asked for (`hidden_matrices`).
    """
    if spec.optimizer == "adamw":
        return _adamw(list(parameters), spec)
    by_muon = {id(each) for each in hidden}
    rest = [each for each in parameters if id(each) not in by_muon]
    return Together(_adamw(rest, spec), Muon(hidden, spec.learning_rate, spec.weight_decay))


def hidden_matrices(model: Any, parts: Iterable[Part]) -> list[Tensor]:
    """Weights of linear layers but the head, and the experts' stacks of matrices: neither embedding nor routers."""
    head = model.get_output_embeddings()
    weights = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head}
    return [part.mine for part in parts if id(part.whole) in weights or part.whole.ndim == 3]


def _adamw(parameters: list[Tensor], spec: PretrainSpec) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(0.9, spec.beta2), fused=True)


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with updates as large as AdamW's, for stacks of matrices too: each of a stack by itself.

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), scaled after arXiv:2502.16982 §2.2.
    """

    def __init__(self, matrices: Sequence[Tensor], lr: float, weight_decay: float) -> None:
        """`matrices`: (A, B) or (E, A, B) each."""
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step of every matrix that has a gradient."""
        assert closure is None, "the loss is not evaluated again"
        for group in self.param_groups:
            for matrix in (each for each in group["params"] if each.grad is not None):
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonal(matrix.grad.lerp(state["momentum_buffer"], MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * RMS_OF_ADAMW * math.sqrt(max(matrix.shape[-2:])))


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly U Vᵀ of each matrix U S Vᵀ, (…, A, B), bfloat16, by the iteration of torch's Muon (Newton and Schulz)."""
    found = matrices.bfloat16()
    is_tall = found.shape[-2] > found.shape[-1]
    found = found.mT if is_tall else found
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=published.EPS)
    for _ in range(published.DEFAULT_NS_STEPS):
        gram = found @ found.mT
        found = published.DEFAULT_A * found + (published.DEFAULT_B * gram + published.DEFAULT_C * gram @ gram) @ found
    return found.mT if is_tall else found


class Together(torch.optim.Optimizer):
    """Optimizers of different parameters as one: their groups and states stand one after the other."""

    def __init__(self, *each: torch.optim.Optimizer) -> None:
        self._each = each
        self._take_groups()

    def _take_groups(self) -> None:
        self.param_groups = [group for optimizer in self._each for group in optimizer.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step of each."""
        assert closure is None, "none of them evaluates the loss"
        for optimizer in self._each:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of each."""
        for optimizer in self._each:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As of one optimizer: parameters are numbered through."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        first = 0
        for optimizer in self._each:
            told = optimizer.state_dict()
            state |= {first + index: values for index, values in told["state"].items()}
            groups += [
                {**group, "params": [first + index for index in group["params"]]} for group in told["param_groups"]
            ]
            first += sum(len(group["params"]) for group in told["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The reverse."""
        groups = iter(state_dict["param_groups"])
        for optimizer in self._each:
            own = list(islice(groups, len(optimizer.param_groups)))
            indices = {index for group in own for index in group["params"]}
            state = {index: values for index, values in state_dict["state"].items() if index in indices}
            optimizer.load_state_dict({"state": state, "param_groups": own})
        self._take_groups()
