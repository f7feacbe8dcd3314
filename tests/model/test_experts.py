"""Every backend of routed experts that runs on a CPU computes the same."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.mistral4.modeling_mistral4 import Mistral4Experts

from nightsmith.model.experts import SEGMENTS, segmented_experts
from nightsmith.model.segments import BLOCK, PADDING, Segments, arrange, blocks, segment
from nightsmith.record.errors import NightsmithError

torch.set_num_threads(1)
BACKENDS = ["eager", "batched_mm", "grouped_mm", SEGMENTS]
NUM_EXPERTS, DIM, HIDDEN = 6, 16, 12


def experts(seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    config = SimpleNamespace(
        num_local_experts=NUM_EXPERTS, hidden_size=DIM, moe_intermediate_size=HIDDEN, hidden_act="silu",
        _experts_implementation="eager",
    )  # fmt: skip
    module = Mistral4Experts(config)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    return module


def inputs(num_tokens: int, top_k: int = 2, favoured: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, expert ids and weights; all choices fall on `favoured` and its neighbours where it is named."""
    generator = torch.Generator().manual_seed(num_tokens)
    scores = torch.rand(num_tokens, NUM_EXPERTS, generator=generator)
    ids = scores.topk(top_k).indices if favoured is None else (torch.arange(top_k) + favoured).expand(num_tokens, -1)
    x = torch.randn(num_tokens, DIM, generator=generator)
    return x, ids.contiguous(), torch.rand(num_tokens, top_k, generator=generator)


def results(module: Any, backend: str, x: Tensor, ids: Tensor, weights: Tensor) -> list[Tensor]:
    """Output, and gradients of tokens, routing weights and expert weights."""
    module = copy.deepcopy(module)
    module.config._experts_implementation = backend
    x, weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
    out = module(x, ids, weights)
    out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
    return [out.detach(), *(value.grad for value in (x, weights, *module.parameters()))]


def differences(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("favoured", [None, 0, 4], ids=["spread", "first", "last"])
@pytest.mark.parametrize("num_tokens", [1, 7, 90])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_the_output_and_the_gradients_of_eager(
    backend: str, num_tokens: int, favoured: int | None
) -> None:
    module, batch = experts(), inputs(num_tokens, favoured=favoured)
    assert max(differences(results(module, backend, *batch), results(module, "eager", *batch))) <= 1e-6


@pytest.mark.parametrize("num_tokens", [90, 5 * BLOCK], ids=["a block each", "several blocks each"])
def test_segments_in_bfloat16_stay_within_its_rounding(num_tokens: int) -> None:
    module, batch = experts(), inputs(num_tokens)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(module, SEGMENTS, *batch)
    assert [value.dtype for value in ours] == [torch.float32] * 5
    assert 1e-4 < max(differences(ours, results(module, "eager", *batch))) < 2e-2


def test_equal_inputs_give_equal_bits() -> None:
    module, batch = experts(), inputs(90)
    first, second = (results(module, SEGMENTS, *batch) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backend", ["grouped_mm", SEGMENTS])
def test_choices_of_experts_on_other_ranks_add_nothing_and_get_no_gradient(backend: str) -> None:
    module, (x, ids, weights) = experts(), inputs(40)
    elsewhere = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    expected = results(module, "eager", x, ids, weights.masked_fill(elsewhere, 0.0))
    module._is_expert_parallel = True
    masked = ids.masked_fill(elsewhere, NUM_EXPERTS), weights.masked_fill(elsewhere, 0.0)
    out, dx, dweights, *dexperts = results(module, backend, x, *masked)
    expected[2] = expected[2].masked_fill(elsewhere, 0.0)
    assert max(differences([out, dx, dweights, *dexperts], expected)) <= 1e-6


def test_experts_of_another_kind_are_refused_with_a_remedy() -> None:
    module, batch = experts(), inputs(3)
    module.act_fn = nn.GELU()
    with pytest.raises(NightsmithError, match=r"another activation than SiLU.*'grouped_mm'"):
        results(module, SEGMENTS, *batch)


def test_a_rank_without_a_token_computes_nothing() -> None:
    module, (x, ids, weights) = experts(), inputs(3)
    out = segmented_experts(module, x, torch.full_like(ids, NUM_EXPERTS), weights)
    assert not out.any()


def shuffled(counts: list[int]) -> Tensor:
    """Choices in any order, (S, 1): so many of each expert."""
    ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))][:, None]


def check_rows(segments: Segments, ids: Tensor) -> None:
    """Every choice has a row of its own, within its expert's segments."""
    expert_R = torch.full((segments.num_rows,), -1)
    for group in segments.groups:
        experts = torch.arange(group.experts.stop)[group.experts] if isinstance(group.experts, slice) else group.experts
        group.split(expert_R)[:] = experts[:, None]
    assert len(segments.row_S.unique()) == len(ids)
    assert torch.equal(expert_R[segments.row_S], ids.flatten())
    assert torch.equal(segments.token_R[segments.row_S], torch.arange(len(ids)))
    assert segments.spread(torch.ones_like(ids)).sum() == len(ids)


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 200), min_size=1, max_size=12).filter(any),
    padding=st.sampled_from([1, PADDING]),
    units=st.sampled_from([8, 640, 40960]),
)
def test_every_choice_has_a_row_of_its_own_within_its_experts_segment(
    counts: list[int], padding: int, units: int
) -> None:
    ids = shuffled(counts)
    segments = segment(ids, torch.empty(len(counts), units, 64, device="meta"), padding)
    check_rows(segments, ids)
    assert all(group.split(segments.token_R).shape[1] % padding == 0 for group in segments.groups)


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=12))
def test_every_choice_has_a_row_of_its_own_within_a_block_of_its_expert(counts: list[int]) -> None:
    ids = shuffled(counts)
    segments = blocks(ids, len(counts))
    check_rows(segments, ids)
    assert segments.num_rows < sum(counts) + BLOCK * len(counts)


def test_small_experts_with_bfloat16_products_are_computed_all_together() -> None:
    ids, small, large = shuffled([300, 5, 0]), torch.empty(3, 64, 64), torch.empty(3, 512, 512)
    assert len(arrange(ids, small, torch.bfloat16).groups) == 1
    assert all(isinstance(group.experts, slice) for group in arrange(ids, small, torch.float32).groups)
    assert all(isinstance(group.experts, slice) for group in arrange(ids, large, torch.bfloat16).groups)
