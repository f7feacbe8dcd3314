"""A goal's data steps become arguments of the build, or a refusal."""

from dataclasses import dataclass

import pytest

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.build import BuildDataset
from nightsmith.tools.data.requests import with_requests

ARGS = BuildDataset(sources=("x",))


@dataclass(frozen=True)
class Asked:
    step: str
    amount: float | None = None
    unit: str | None = None


def test_rows_and_shares_are_honoured():
    args = with_requests(ARGS, [Asked("split", 500, "rows"), Asked("sample", 0.25, "share"), Asked("dedup")])
    assert (args.dev_rows, args.sample_share, args.dedup) == (500, 0.25, True)


@pytest.mark.parametrize(("amount", "dev_share"), [(0.1, 0.1), (0.9, 0.1), (0.5, 0.5)])
def test_a_split_share_above_a_half_is_the_share_of_train(amount: float, dev_share: float):
    assert with_requests(ARGS, [Asked("split", amount, "share")]).dev_share == pytest.approx(dev_share)


def test_a_forbidden_dedup_is_left_out():
    args = with_requests(ARGS, [], avoid=("dedup", "lora"))
    assert [step.kind for step in args.compiled()] == ["length", "split"]


@pytest.mark.parametrize(
    ("asked", "avoid", "said"),
    [
        (Asked("near_dedup"), (), "'near_dedup' cannot be done yet. Available: dedup, split, sample"),
        (Asked("dedup"), ("dedup",), "both asks for 'dedup' and forbids it"),
        (Asked("sample"), ("split",), "nothing can be judged without held-out rows"),
        (Asked("split", 2, "rows"), (), "'dev_rows' is 2"),
        (Asked("sample", 10, "share"), (), "'sample_share' is 10"),
        (Asked("sample", 1.5, "rows"), (), "'sample_rows' is 1.5"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_remedy(asked: Asked, avoid: tuple[str, ...], said: str):
    with pytest.raises(ToolError) as caught:
        with_requests(ARGS, [asked], avoid=avoid)
    assert said in str(caught.value)
