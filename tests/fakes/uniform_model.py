"""A model that knows nothing: every token is equally likely, everywhere."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class FakeUniformModel(nn.Module):
    """Zero logits, and a record of what it was asked."""

    def __init__(self, vocab_size: int = 259) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.vocab_size = vocab_size
        self.seen: list[Tensor] = []

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        assert not use_cache
        self.seen.append(input_ids)
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, self.vocab_size))
