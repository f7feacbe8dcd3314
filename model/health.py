"""How evenly the experts of each layer are used: counted by the routers in every training step, looked at when wanted.

L layers, E experts.
"""

import math
from collections import deque
from dataclasses import dataclass
from functools import reduce

import torch
from torch import nn

from nightsmith.model.router import routers


@dataclass(frozen=True)
class RouterHealth:
    """How one layer's experts were used."""

    max_vio: float
    """Largest load over mean load, minus 1 (0 is even); arXiv:2408.15664."""
    entropy: float
    """Entropy of the load, divided by log(E): 1 is even, 0 is one expert only."""
    dead_experts: int
    """Experts that no token chose."""
    logit_norm: float
    """Mean L2 norm of a token's router logits: growing without end is the sign of a router that runs away."""


@dataclass(frozen=True)
class RouterUse:
    """What one layer's router did in some training steps; uses of several spans can be added."""

    load: tuple[int, ...]
    """Choices per expert, of all data-parallel ranks."""
    logit_norm: float
    """Sum over micro-batches of the mean norm of the logits, of this rank."""
    num_batches: int
    """Micro-batches."""

    def __add__(self, other: "RouterUse") -> "RouterUse":
        load = tuple(mine + theirs for mine, theirs in zip(self.load, other.load, strict=True))
        return RouterUse(load, self.logit_norm + other.logit_norm, self.num_batches + other.num_batches)

    def health(self) -> RouterHealth:
        """The figures; at least one choice must have been counted."""
        total, experts = sum(self.load), len(self.load)
        shares = [count / total for count in self.load if count]
        entropy = -sum(share * math.log(share) for share in shares)
        return RouterHealth(
            max_vio=max(self.load) * experts / total - 1,
            entropy=entropy / math.log(experts) if experts > 1 else 1.0,
            dead_experts=self.load.count(0),
            logit_norm=self.logit_norm / self.num_batches,
        )


def take_use(model: nn.Module) -> list[RouterUse]:
    """Use per layer over the training steps since the last call (none: an empty list). Counting starts anew."""
    counted = [router for router in routers(model) if router.num_batches]
    if not counted:
        return []
    loads_LE = torch.stack([router.load_E for router in counted]).tolist()
    norms_L = torch.stack([router.logit_norm for router in counted]).tolist()
    use = [
        RouterUse(tuple(load), norm, router.num_batches)
        for load, norm, router in zip(loads_LE, norms_L, counted, strict=True)
    ]
    for router in counted:
        router.forget()
    return [each for each in use if any(each.load)]


def take_health(model: nn.Module) -> list[RouterHealth]:
    """Health per layer over the training steps since the last call (none: an empty list). Counting starts anew."""
    return [use.health() for use in take_use(model)]


class StepUse:
    """Which experts each step chose, whoever else looks at the counts in between and starts them anew."""

    def __init__(self) -> None:
        self._num_batches = 0
        self._load: torch.Tensor | None = None

    def take(self, model: nn.Module) -> list[bool]:
        """For each expert of each layer whether a token chose it since the last call; empty where nothing counts."""
        counted = [router for router in routers(model) if router.num_batches]
        if not counted:
            return []
        load, num_batches = torch.cat([router.load_E for router in counted]), counted[0].num_batches
        goes_on = self._load is not None and num_batches > self._num_batches
        since = load - self._load if goes_on and self._load is not None else load
        self._load, self._num_batches = load, num_batches
        return (since > 0).tolist()


class Recent:
    """Use over the last steps of a training run, looked at span by span."""

    def __init__(self, num_steps: int) -> None:
        """`num_steps`: how many of the last steps `health` must cover, where so many were counted."""
        self._num_steps = num_steps
        self._spans: deque[tuple[int, list[RouterUse]]] = deque()

    def take(self, model: nn.Module, step: int) -> list[RouterHealth]:
        """Health per layer since the last look (no step since: an empty list). `step`: steps done by now."""
        use = take_use(model)
        if use:
            self._spans.append((step, use))
        while len(self._spans) > 1 and self._spans[0][0] <= step - self._num_steps:
            self._spans.popleft()
        return [each.health() for each in use]

    def health(self) -> list[RouterHealth]:
        """Health per layer over the last steps; before any, an empty list."""
        layers = zip(*(use for _, use in self._spans), strict=True)
        return [reduce(RouterUse.__add__, layer).health() for layer in layers]


def worst(layers: list[RouterHealth]) -> dict[str, float]:
    """One figure for each measure over a model's layers: the worst layer's; dead experts are summed."""
    return {
        "router/max_vio": max(layer.max_vio for layer in layers),
        "router/entropy": min(layer.entropy for layer in layers),
        "router/dead_experts": float(sum(layer.dead_experts for layer in layers)),
        "router/logit_norm": max(layer.logit_norm for layer in layers),
    }
