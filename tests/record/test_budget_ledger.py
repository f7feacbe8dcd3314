import contextlib
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nightsmith.record import audit
from nightsmith.record.budget import (
    Amount,
    Budget,
    Cost,
    Deadline,
    amend,
    balance,
    open_account,
    reconcile,
    release,
    reserve,
    tick,
)
from nightsmith.record.errors import BudgetSpent, NightsmithError
from nightsmith.record.workspace import Workspace, open_workspace

EUR_10 = Cost(amount=10, currency="EUR")
ALL_LIMITS = Budget(max_trials=3, wall_clock_s=100, gpu_hours=2, tokens=1000, cost=EUR_10)


def reserved(ws: Workspace, key: str, account: str = "s1", **amount: float) -> None:
    with ws.write() as db:
        reserve(db, account, key, Amount.model_validate(amount))


def reconciled(ws: Workspace, key: str, **amount: float) -> None:
    with ws.write() as db:
        reconcile(db, key, Amount.model_validate(amount))


# Quarters are exact in binary, so that the oracle needs no tolerance.
quarters = st.integers(0, 16).map(lambda n: n / 4)
amounts = st.builds(
    Amount,
    wall_s=quarters,
    gpu_hours=quarters,
    tokens=quarters,
    cost=quarters,
    trials=st.integers(0, 2),
    cpu_s=quarters,
)
limits = st.none() | st.integers(1, 40).map(lambda n: n / 4)
budgets = st.builds(
    Budget,
    max_trials=st.none() | st.integers(0, 5),
    wall_clock_s=limits,
    gpu_hours=limits,
    tokens=limits,
    cost=st.none() | st.builds(Cost, amount=quarters, currency=st.just("EUR")),
)
keys = st.sampled_from(["a", "a/eval", "b", "c"])
SUMMED = ("wall_s", "cpu_s", "gpu_hours", "tokens", "cost")


class Ledger(RuleBasedStateMachine):
    """The account against a plain dictionary: what each key reserved (or None) and spent."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.ws = open_workspace(Path(self.folder.name) / ".nightsmith")
        self.open: dict[str, Amount | None] = {}
        self.spent: dict[str, Amount] = {}
        self.active_s = 0.0

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(budget=budgets)
    def opened(self, budget: Budget) -> None:
        self.budget = budget
        open_account(self.ws, "s1", budget)

    def used(self, field: str) -> float:
        standing = [amount for amount in self.open.values() if amount is not None]
        return sum(getattr(amount, field) for amount in [*standing, *self.spent.values()])

    def fits(self, amount: Amount) -> bool:
        budget = self.budget
        money = None if budget.cost is None else budget.cost.amount
        bounds = {"trials": budget.max_trials, "gpu_hours": budget.gpu_hours, "tokens": budget.tokens, "cost": money}
        asked = {field: getattr(amount, field) for field in bounds}
        inside = all(
            limit is None or asked[field] == 0 or self.used(field) + asked[field] <= limit
            for field, limit in bounds.items()
        )
        wall = budget.wall_clock_s
        return inside and (wall is None or (self.active_s < wall and self.active_s + amount.wall_s <= wall))

    @rule(key=keys, amount=amounts)
    def reserve(self, key: str, amount: Amount) -> None:
        counted = self.spent.get(key, Amount()).trials
        asked = amount.model_copy(update={"trials": max(0, amount.trials - counted)})
        if self.open.get(key) is not None or self.fits(asked):
            reserved(self.ws, key, **amount.model_dump())
            self.open[key] = self.open.get(key) or asked
        else:
            with pytest.raises(BudgetSpent):
                reserved(self.ws, key, **amount.model_dump())

    @rule(key=keys, spent=amounts)
    def reconcile(self, key: str, spent: Amount) -> None:
        if key not in self.open:
            with pytest.raises(NightsmithError):
                reconciled(self.ws, key, **spent.model_dump())
            return
        reconciled(self.ws, key, **spent.model_dump())
        if self.open[key] is not None:
            before = self.spent.get(key, Amount())
            sums = {field: getattr(before, field) + getattr(spent, field) for field in SUMMED}
            self.spent[key] = Amount(**sums, trials=max(before.trials, spent.trials))
            self.open[key] = None

    @rule(key=keys)
    def release(self, key: str) -> None:
        with self.ws.write() as db:
            release(db, key)
        if key in self.open:
            self.open[key] = None

    @rule(seconds=quarters)
    def tick(self, seconds: float) -> None:
        tick(self.ws, "s1", seconds)
        self.active_s += seconds

    @invariant()
    def the_balance_is_the_sum_over_all_keys(self) -> None:
        if not hasattr(self, "budget"):
            return
        present = balance(self.ws, "s1")
        for field in (*SUMMED, "trials"):
            assert getattr(present.spent, field) + getattr(present.reserved, field) == self.used(field)
        assert present.active_s == self.active_s


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize(
    ("field", "fits", "too_much"),
    [("trials", 3, 4), ("wall_s", 100, 100.5), ("gpu_hours", 2, 2.1), ("tokens", 1000, 1001), ("cost", 10, 10.01)],
)
def test_each_limit_is_inclusive_and_refuses_what_is_above_it(
    ws: Workspace, field: str, fits: float, too_much: float
) -> None:
    open_account(ws, "s1", ALL_LIMITS)
    with pytest.raises(BudgetSpent):
        reserved(ws, "k", **{field: too_much})
    reserved(ws, "k", **{field: fits})


def test_a_budget_without_limits_refuses_nothing(ws: Workspace) -> None:
    open_account(ws, "s1", Budget())
    reserved(ws, "k", trials=10**6, wall_s=1e9, gpu_hours=1e9, tokens=1e15, cost=1e9)


def test_decimal_shares_add_up_to_their_limit(ws: Workspace) -> None:
    open_account(ws, "s1", Budget(gpu_hours=0.3))
    for key in ("a", "b", "c"):
        reserved(ws, key, gpu_hours=0.1)
    with pytest.raises(BudgetSpent):
        reserved(ws, "d", gpu_hours=1e-6)


def test_reconciling_frees_what_was_not_spent_and_records_what_was_overspent(ws: Workspace) -> None:
    open_account(ws, "s1", ALL_LIMITS)
    reserved(ws, "k", tokens=900)
    reconciled(ws, "k", tokens=400)
    reserved(ws, "m", tokens=600)
    reconciled(ws, "m", tokens=700)
    present = balance(ws, "s1")
    assert present.spent.tokens == 1100
    assert present.left.tokens == 0
    with pytest.raises(BudgetSpent):
        reserved(ws, "n", tokens=1)
    reserved(ws, "o", trials=1)


def test_a_resumed_job_adds_to_what_it_spent_but_its_trial_counts_once(ws: Workspace) -> None:
    open_account(ws, "s1", Budget(max_trials=1, tokens=100))
    for _ in range(2):
        reserved(ws, "k", trials=1, tokens=50)
        reconciled(ws, "k", trials=1, tokens=50)
    assert balance(ws, "s1").spent == Amount(trials=1, tokens=100)


def test_a_child_job_draws_on_the_account_by_its_own_key(ws: Workspace) -> None:
    open_account(ws, "s1", Budget(gpu_hours=1))
    reserved(ws, "k", gpu_hours=0.5)
    reserved(ws, "k/eval", gpu_hours=0.5)
    with pytest.raises(BudgetSpent):
        reserved(ws, "k/eval2", gpu_hours=0.25)


def test_a_refusal_says_what_was_asked_what_is_left_and_what_to_do(ws: Workspace) -> None:
    open_account(ws, "s1", ALL_LIMITS)
    reserved(ws, "k", trials=2, cost=4)
    tick(ws, "s1", 40)
    with pytest.raises(BudgetSpent) as refusal:
        reserved(ws, "m", trials=2, wall_s=61, cost=7)
    text = str(refusal.value)
    assert "asked 2 trials, left 1 of 3" in text
    assert "asked 7 EUR, left 6 of 10" in text
    assert "asked 61 s of wall clock, left 60 s of 100 s" in text
    assert "approve a larger budget" in text


def test_jobs_side_by_side_share_the_wall_clock_that_is_left(ws: Workspace) -> None:
    open_account(ws, "s1", Budget(wall_clock_s=100))
    reserved(ws, "k", wall_s=100)
    reserved(ws, "m", wall_s=100)
    tick(ws, "s1", 100)
    with pytest.raises(BudgetSpent):
        reserved(ws, "n", wall_s=0)


def test_an_account_that_was_never_opened_pays_for_nothing(ws: Workspace) -> None:
    with pytest.raises(BudgetSpent, match="never opened"):
        reserved(ws, "k")
    with pytest.raises(BudgetSpent, match="never opened"):
        tick(ws, "s1", 1)
    with pytest.raises(BudgetSpent, match="never opened"):
        balance(ws, "s1")


def test_opening_twice_keeps_the_account_and_another_budget_needs_an_audited_amendment(ws: Workspace) -> None:
    open_account(ws, "s1", ALL_LIMITS)
    reserved(ws, "k", tokens=1000)
    open_account(ws, "s1", ALL_LIMITS)
    assert balance(ws, "s1").left.tokens == 0
    larger = ALL_LIMITS.model_copy(update={"tokens": 1500})
    with pytest.raises(NightsmithError, match="approval"):
        open_account(ws, "s1", larger)
    amend(ws, "s1", larger)
    assert balance(ws, "s1").left.tokens == 500
    assert [line.action for line in audit.read(ws)] == ["budget.amended"]


def test_a_key_belongs_to_one_account(ws: Workspace) -> None:
    open_account(ws, "s1", ALL_LIMITS)
    open_account(ws, "s2", ALL_LIMITS)
    reserved(ws, "k", "s1")
    with pytest.raises(ValueError, match="belongs to account 's1'"):
        reserved(ws, "k", "s2")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_active_time_never_runs_backwards(ws: Workspace, seconds: float) -> None:
    open_account(ws, "s1", ALL_LIMITS)
    with pytest.raises(ValueError, match="Active time"):
        tick(ws, "s1", seconds)


def test_a_deadline_without_a_date_is_the_next_time_the_local_clock_shows_it(ws: Workspace) -> None:
    evening = datetime(2026, 11, 23, 22, 0).astimezone()
    open_account(ws, "s1", Budget(deadline=Deadline(time="07:00")), now=lambda: evening)
    assert balance(ws, "s1", now=lambda: evening).left.deadline_s == 9 * 3600
    nearly = evening + timedelta(hours=8, minutes=59)
    with ws.write() as db:
        reserve(db, "s1", "k", Amount(wall_s=60), now=lambda: nearly)
        with pytest.raises(BudgetSpent, match="until the deadline"):
            reserve(db, "s1", "m", Amount(wall_s=61), now=lambda: nearly)
        with pytest.raises(BudgetSpent, match="until the deadline"):
            reserve(db, "s1", "m", Amount(), now=lambda: nearly + timedelta(minutes=1))


def test_a_dated_deadline_in_the_past_refuses_every_start(ws: Workspace) -> None:
    deadline = Deadline(time="07:00", date="2026-11-23")
    open_account(ws, "s1", Budget(deadline=deadline))
    with ws.write() as db, pytest.raises(BudgetSpent, match="2026-11-23 07:00"):
        reserve(db, "s1", "k", Amount(), now=lambda: datetime(2026, 11, 25, tzinfo=UTC))
    with pytest.raises(NightsmithError, match="not in the calendar"):
        open_account(ws, "s2", Budget(deadline=Deadline(time="07:00", date="2026-02-30")))


def test_a_reservation_goes_with_the_transaction_that_made_it(ws: Workspace) -> None:
    open_account(ws, "s1", ALL_LIMITS)
    with contextlib.suppress(RuntimeError), ws.write() as db:
        reserve(db, "s1", "k", Amount(tokens=1000))
        raise RuntimeError
    assert balance(ws, "s1").reserved == Amount()


CONTENDER = """
import sys
from pathlib import Path
from nightsmith.record.budget import Amount, reserve
from nightsmith.record.errors import BudgetSpent
from nightsmith.record.workspace import open_workspace
ws, granted = open_workspace(Path(sys.argv[1])), 0
for number in range(20):
    try:
        with ws.write() as db:
            reserve(db, "s1", f"{sys.argv[2]}-{number}", Amount(tokens=1))
        granted += 1
    except BudgetSpent:
        pass
print(granted)
"""


def test_contending_processes_together_get_exactly_the_budget(ws: Workspace) -> None:
    open_account(ws, "s1", Budget(tokens=30))
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(ws.root), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        for number in range(3)
    ]
    granted = [int(contender.communicate(timeout=60)[0]) for contender in contenders]
    assert sum(granted) == 30
    assert balance(ws, "s1").reserved.tokens == 30
