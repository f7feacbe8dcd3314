"""When schedules are due, and that an occurrence is run once."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nightsmith.record import approvals, audit, recurrence, schedules
from nightsmith.record.approvals import Envelope, excess
from nightsmith.record.budget import Budget, Cost
from nightsmith.record.errors import NightsmithError, NotApproved
from nightsmith.record.recurrence import DAYS, Due, Recurrence
from nightsmith.record.schedules import ScheduleRow
from nightsmith.record.workspace import Workspace

PARIS = ZoneInfo("Europe/Paris")
START = datetime(2026, 3, 23, 12, 0, tzinfo=UTC)
"""A Monday; clocks in Paris go forward on the Sunday after it."""


def weeknights(**changes: object) -> Recurrence:
    return Recurrence.model_validate(
        {"at": "22:00", "days": DAYS[:5], "until": "07:00", "timezone": "Europe/Paris", **changes}
    )


def starts(recurring: Recurrence, after: datetime, until: datetime) -> list[str]:
    """Starts by the clock on the wall, with its offset."""
    return [f"{due.at.astimezone(recurring.zone):%a %d %H:%M%z}" for due in recurrence.between(recurring, after, until)]


def added(ws: Workspace, name: str = "weeknights", **changes: object) -> ScheduleRow:
    return schedules.add(
        ws, name, goal="goal", interpretation={"status": "ready", "spec": {"goal": "goal"}, "sources": {}},
        folder="/folder", recurrence=weeknights(**changes), budget=Budget(max_trials=5), now=lambda: START,
    )  # fmt: skip


def approved(ws: Workspace, row: ScheduleRow, **changes: object) -> Envelope:
    fields = {"study": row.account, "spec_digest": "a" * 64, "plan_digest": "b" * 64, "kinds": ("pretrain", "evaluate")}
    envelope = Envelope.model_validate({**fields, "time_limit_s": 600, **changes})
    approvals.approve(ws, envelope, how="console", valid_s=90 * 86_400, now=lambda: START)
    return envelope


def test_a_week_of_weeknights_leaves_out_the_weekend_and_keeps_the_hour_when_clocks_change() -> None:
    told = starts(weeknights(), START, START + timedelta(days=8))
    assert told == [
        "Mon 23 22:00+0100", "Tue 24 22:00+0100", "Wed 25 22:00+0100", "Thu 26 22:00+0100", "Fri 27 22:00+0100",
        "Mon 30 22:00+0200",
    ]  # fmt: skip


def test_a_window_over_midnight_ends_the_next_morning_and_is_an_hour_shorter_when_clocks_go_forward() -> None:
    saturday = weeknights(days=("sat",))
    due = recurrence.following(saturday, START)[0]
    assert due.until is not None
    assert due.until - due.at == timedelta(hours=8)
    assert due.until.astimezone(PARIS).strftime("%a %H:%M") == "Sun 07:00"


def test_a_time_that_a_spring_day_lacks_is_the_first_minute_after_the_gap_once() -> None:
    night = weeknights(at="02:30", days=("sun",), until=None)
    assert starts(night, START, START + timedelta(days=7)) == ["Sun 29 03:00+0200"]


def test_a_time_that_an_autumn_day_has_twice_is_the_first_of_the_two() -> None:
    before = datetime(2026, 10, 24, tzinfo=UTC)
    night = weeknights(at="02:30", days=DAYS, until=None)
    assert starts(night, before, before + timedelta(days=2)) == ["Sat 24 02:30+0200", "Sun 25 02:30+0200"]


def test_a_window_that_lies_inside_a_gap_keeps_its_length() -> None:
    due = recurrence.following(weeknights(at="02:15", days=("sun",), until="02:45"), START)[0]
    assert due.until == due.at + timedelta(minutes=30)


def test_a_zone_that_skipped_a_whole_day_runs_once_after_it() -> None:
    apia = Recurrence(at="00:00", timezone="Pacific/Apia")
    before = datetime(2011, 12, 29, 20, tzinfo=UTC)
    assert len(recurrence.between(apia, before, before + timedelta(hours=20))) == 1


def test_times_that_a_timer_must_know_include_those_after_a_gap() -> None:
    night = weeknights(at="02:30", days=DAYS, until=None)
    assert recurrence.starts_by_clock(night, START, PARIS) == {"02:30": DAYS, "03:00": ("sun",)}
    assert list(recurrence.starts_by_clock(weeknights(), START, UTC)) == ["20:00", "21:00"]


@pytest.mark.parametrize("change", [{"at": "24:00"}, {"until": "7"}, {"timezone": "Europe/Pari"}, {"timezone": ".."}])
def test_a_clock_or_a_zone_that_does_not_exist_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        weeknights(**change)


def test_a_schedule_is_stored_with_its_folder_and_found_by_name(ws: Workspace) -> None:
    row = added(ws)
    assert schedules.get(ws, "weeknights") == row
    assert (row.folder, row.budget.max_trials, row.recurrence) == ("/folder", 5, weeknights())
    with pytest.raises(NightsmithError, match="already"):
        added(ws)
    with pytest.raises(NightsmithError, match="Schedules: weeknights"):
        schedules.get(ws, "weeknight")


def test_a_removed_schedule_frees_its_name_and_keeps_its_history(ws: Workspace) -> None:
    first = added(ws)
    schedules.begin(ws, first.id, Due(START, None), now=lambda: START)
    schedules.remove(ws, "weeknights", now=lambda: START)
    assert schedules.all(ws) == []
    second = added(ws)
    assert second.id != first.id
    assert second.account != first.account
    assert len(schedules.occurrences(ws, first.id)) == 1
    assert [line.action for line in audit.read(ws)] == ["schedule.added", "schedule.removed", "schedule.added"]


def test_an_occurrence_is_claimed_by_one_and_released_only_before_its_study(ws: Workspace) -> None:
    row, due = added(ws), Due(START, START + timedelta(hours=1))
    claimed = schedules.begin(ws, row.id, due)
    assert claimed is not None
    assert schedules.begin(ws, row.id, due) is None
    schedules.release(ws, claimed.id)
    again = schedules.begin(ws, row.id, due)
    assert again is not None
    schedules.set_study(ws, again.id, "s1")
    schedules.release(ws, again.id)
    assert [one.study for one in schedules.unfinished(ws, row.id)] == ["s1"]


def test_the_standing_approval_rules_until_it_expires_is_revoked_or_changed(ws: Workspace) -> None:
    row = added(ws)
    with pytest.raises(NotApproved, match="night renew weeknights"):
        schedules.standing(ws, row, lambda: START)
    envelope = approved(ws, row)
    assert schedules.standing(ws, row, lambda: START).envelope == envelope
    with pytest.raises(NotApproved, match=r"expired.*night renew weeknights"):
        schedules.standing(ws, row, lambda: START + timedelta(days=90))
    with ws.write() as db:
        db.execute("UPDATE approvals SET approval = replace(approval, '600', '6000')")
    with pytest.raises(NotApproved, match="changed after it was given"):
        schedules.standing(ws, row, lambda: START)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"spec_digest": "c" * 64}, "another one"),
        ({"kinds": ("pretrain", "evaluate", "sft")}, "sft"),
        ({"methods": ("pretrain", "sft")}, "methods: sft"),
        ({"max_trials": 6}, "trials: 6, approved 5"),
        ({"max_trials": None}, "no limit"),
        ({"time_limit_s": 700}, "seconds for one job"),
        ({"budget": Budget(max_trials=5, wall_clock_s=7200, tokens=1e6)}, "wall_clock_s: 7200, approved 3600"),
        ({"budget": Budget(max_trials=5, tokens=1e6)}, "wall_clock_s: no limit"),
        ({"budget": Budget(max_trials=5, wall_clock_s=60, tokens=1e6, cost=Cost(amount=2, currency="EUR"))}, ""),
    ],
)
def test_what_goes_beyond_the_standing_envelope_is_named(change: dict[str, object], told: str) -> None:
    common = {"study": "x", "spec_digest": "a" * 64, "plan_digest": "b" * 64, "kinds": ("pretrain", "evaluate")}
    standing = Envelope.model_validate(
        {**common, "methods": ("pretrain",), "max_trials": 5, "time_limit_s": 600,
         "budget": Budget(max_trials=5, wall_clock_s=3600, tokens=1e6)}
    )  # fmt: skip
    asked = standing.model_copy(update={"study": "s1", "plan_digest": "d" * 64})
    assert excess(standing, asked) == []
    found = excess(standing, asked.model_copy(update=change))
    assert told in "; ".join(found)
    assert bool(found) == bool(told)


def test_another_currency_or_more_money_goes_beyond() -> None:
    common = {"study": "x", "spec_digest": "a", "plan_digest": "b", "kinds": ("sft",), "time_limit_s": 1}
    ten = Envelope.model_validate({**common, "budget": Budget(cost=Cost(amount=10, currency="EUR"))})
    for cost in (Cost(amount=11, currency="EUR"), Cost(amount=1, currency="USD"), None):
        assert excess(ten, ten.model_copy(update={"budget": Budget(cost=cost)}))


clocks = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
zones = st.sampled_from(["Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"])
recurrences = st.builds(
    Recurrence,
    at=clocks,
    days=st.sets(st.sampled_from(DAYS), min_size=1).map(lambda days: tuple(sorted(days, key=DAYS.index))),
    timezone=zones,
)
gaps = st.lists(st.floats(min_value=0, max_value=12 * 86_400), min_size=1, max_size=12)


@given(recurring=recurrences, gaps=gaps, begin=st.integers(0, 365))
@settings(deadline=None, max_examples=150)
def test_whatever_the_wake_ups_every_occurrence_is_found_once_and_none_in_the_future(recurring, gaps, begin) -> None:
    created = START + timedelta(days=begin)
    handled, now, seen = created, created, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        found = [due.at for due in recurrence.between(recurring, handled, now)]
        assert all(at <= now for at in found)
        handled = max([handled, *found])
        seen += found
    assert seen == sorted(set(seen))
    assert seen == [due.at for due in recurrence.between(recurring, created, now)]


@given(recurring=recurrences, begin=st.integers(0, 365))
@settings(deadline=None, max_examples=100)
def test_every_day_that_is_named_has_one_occurrence(recurring, begin) -> None:
    since = START + timedelta(days=begin)
    dues = recurrence.between(recurring, since, since + timedelta(days=28))
    days = [due.at.astimezone(recurring.zone).date() for due in dues]
    assert len(set(days)) == len(days)
    assert abs(len(dues) - 4 * len(recurring.days)) <= 1
    assert all(DAYS[day.weekday()] in recurring.days for day in days)
    assert all(timedelta(hours=22) <= later.at - sooner.at for sooner, later in pairwise(dues))
