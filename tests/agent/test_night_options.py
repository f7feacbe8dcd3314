"""What `night add` is told beside the goal, and how it completes the goal's own schedule."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from simulated_nights import PLAN, SPEC

from nightsmith.agent import night_add, night_view, night_words
from nightsmith.agent.goal import GoalSpec, Schedule
from nightsmith.agent.night_add import Asked
from nightsmith.agent.night_words import CannotSchedule
from nightsmith.record.budget import Budget, Deadline
from nightsmith.record.recurrence import DAYS


def goal(**changes: object) -> GoalSpec:
    return SPEC.model_copy(update=changes)


EVERY_WEEKNIGHT = goal(schedule=Schedule(cron="0 22 * * 1-5", until="07:00", timezone="Europe/Paris"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mon-fri", DAYS[:5]), ("sat,sun", DAYS[5:]), ("daily", DAYS), ("weekdays", DAYS[:5]),
        ("Mon, Wednesday", DAYS[:3:2]),
        ("fri-mon", ("mon", "fri", "sat", "sun")), ("weekends", DAYS[5:]), ("mon-sun", DAYS),
    ],
)  # fmt: skip
def test_days_are_read_as_people_write_them(text: str, expected: tuple[str, ...]) -> None:
    assert night_words.days(text) == expected
    assert night_words.days(night_words.days_told(night_words.days(text))) == expected


@pytest.mark.parametrize("text", ["", "mo", "funday", "mon;tue", "-fri"])
def test_days_that_are_none_are_refused_with_examples(text: str) -> None:
    with pytest.raises(CannotSchedule, match="mon-fri"):
        night_words.days(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 trials, 8h", {"trials": "5", "time": "8h"}),
        ("trials=5,time=8h,gpu_hours=40", {"trials": "5", "time": "8h", "gpu_hours": "40"}),
        ("1 trial; 1h30m", {"trials": "1", "time": "1h30m"}),
        ("2M tokens, 40 GPU-hours", {"tokens": "2M", "gpu_hours": "40"}),
        ("time_per_trial=10m", {"time_per_trial": "10m"}),
        ("8 hours", {"time": "8 hours"}),
    ],
)
def test_a_budget_is_read_by_unit_or_by_name(text: str, expected: dict[str, str]) -> None:
    assert night_words.budget(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "trails=5", "5 trails", "target=0.2", "learning_rate=1"])
def test_a_budget_names_limits_and_nothing_else(text: str) -> None:
    with pytest.raises(CannotSchedule, match="trials"):
        night_words.budget(text)


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 22 * * 1-5", ("22:00", DAYS[:5])), ("30 2 * * 0,6", ("02:30", DAYS[5:])), ("5 7 * * *", ("07:05", DAYS)),
        ("0 1 * * 5-7", ("01:00", DAYS[4:])),
    ],
)  # fmt: skip
def test_a_goals_own_schedule_is_a_time_on_days(cron: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert night_words.from_cron(cron) == expected


@pytest.mark.parametrize("cron", ["0 * * * *", "0 22 1 * *", "*/5 * * * *", "0 22 * * 1-9", "0 25 * * *"])
def test_a_recurrence_that_is_no_time_of_day_is_refused(cron: str) -> None:
    with pytest.raises(CannotSchedule):
        night_words.from_cron(cron)


def test_time_zones_are_names_offsets_and_the_abbreviations_of_goals(tmp_path: Path, monkeypatch) -> None:
    assert night_words.timezone("Europe/Paris") == "Europe/Paris"
    assert night_words.timezone("UTC+2") == "Etc/GMT-2"
    assert datetime(2026, 7, 1, tzinfo=ZoneInfo(night_words.timezone("EST"))).strftime("%z") == "-0400"
    with pytest.raises(CannotSchedule, match="Europe/Paris"):
        night_words.timezone("Europe/Pari")
    monkeypatch.setenv("TZ", ":Asia/Kolkata")
    assert night_words.timezone(None) == "Asia/Kolkata"
    monkeypatch.delenv("TZ")
    assert night_words.local_timezone(tmp_path) == "UTC"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/timezone").write_text("Asia/Tokyo\n")
    assert night_words.local_timezone(tmp_path) == "Asia/Tokyo"
    zone = tmp_path / "usr/share/zoneinfo/Europe/Oslo"
    zone.parent.mkdir(parents=True)
    zone.touch()
    (tmp_path / "etc/localtime").symlink_to(zone)
    assert night_words.local_timezone(tmp_path) == "Europe/Oslo"


def test_a_goal_that_names_its_schedule_needs_no_options() -> None:
    told = night_view.when_told(night_add.recurrence_of(EVERY_WEEKNIGHT, Asked()))
    assert told == "mon-fri at 22:00 until 07:00 (Europe/Paris)"


def test_options_complete_or_override_the_goals_own_schedule() -> None:
    asked = Asked(at="1:30", until="05:00")
    assert night_view.when_told(night_add.recurrence_of(EVERY_WEEKNIGHT, asked)).startswith("mon-fri at 01:30 until 05")
    asked = Asked(days="sat", timezone="UTC")
    assert night_view.when_told(night_add.recurrence_of(EVERY_WEEKNIGHT, asked)) == "sat at 22:00 until 07:00 (UTC)"
    hourly = goal(schedule=Schedule(cron="0 * * * *"))
    asked = Asked(at="22:00", days="daily", timezone="UTC")
    assert night_view.when_told(night_add.recurrence_of(hourly, asked)) == "daily at 22:00 (UTC)"


def test_a_deadline_without_a_date_is_the_end_of_each_night() -> None:
    spec = goal(budget=Budget(deadline=Deadline(time="06:00")))
    asked = Asked(at="22:00", timezone="UTC")
    recurring = night_add.recurrence_of(spec, asked)
    one, sources = night_add.nightly(spec, {"/budget/deadline/time": {"span": [0, 5]}, "/goal": "default"}, asked)
    assert recurring.until == "06:00"
    assert one.budget.deadline is None
    assert sources == {"/goal": "default"}


def test_a_goal_without_a_time_or_with_a_night_of_no_length_is_refused() -> None:
    with pytest.raises(CannotSchedule, match="--at 22:00"):
        night_add.recurrence_of(SPEC, Asked())
    with pytest.raises(CannotSchedule, match="start and end at 22:00"):
        night_add.recurrence_of(SPEC, Asked(at="22:00", until="22:00"))
    with pytest.raises(CannotSchedule, match="24-hour"):
        night_add.recurrence_of(SPEC, Asked(at="10pm"))


def test_an_unattended_run_needs_an_end() -> None:
    endless = goal(budget=Budget(gpu_hours=40))
    for until, spec, is_ended in [
        (None, endless, False), ("07:00", endless, True), (None, goal(budget=Budget(wall_clock_s=60)), True),
        (None, goal(budget=Budget(max_trials=1)), True), (None, goal(budget=Budget(tokens=10)), True),
    ]:  # fmt: skip
        recurring = night_add.recurrence_of(spec, Asked(at="22:00", until=until, timezone="UTC"))
        if is_ended:
            night_add.require_end(recurring, spec)
        else:
            with pytest.raises(CannotSchedule, match="needs an end"):
                night_add.require_end(recurring, spec)


def test_the_budget_of_a_night_replaces_the_goals_and_says_so() -> None:
    one, sources = night_add.nightly(EVERY_WEEKNIGHT, {"/schedule/cron": "default"}, Asked(budget="2 trials, 8 hours"))
    assert one.schedule is None
    assert (one.budget.max_trials, one.budget.wall_clock_s) == (2, 8 * 3600)
    assert sources == {"/budget/max_trials": night_add.ASKED, "/budget/wall_clock_s": night_add.ASKED}


def test_what_is_approved_is_the_goal_its_jobs_its_trials_and_its_time() -> None:
    recurring = night_add.recurrence_of(EVERY_WEEKNIGHT, Asked())
    spec = goal(schedule=None)
    standing = night_add.envelope("schedule-1", spec, PLAN, recurring)
    assert standing.spec_digest == spec.digest()
    assert standing.kinds == ("pretrain", "evaluate")
    assert (standing.max_trials, standing.time_limit_s) == (5, 9 * 3600)
    open_ended = night_add.envelope("schedule-1", goal(budget=Budget()), PLAN, recurring)
    assert open_ended.max_trials is None
    assert "as many trials as its time and budget hold" in night_view.envelope_told(open_ended)
    told = night_view.card(
        recurring, standing, folder=Path("/f"), valid_days=90, now=lambda: datetime(2026, 3, 27, 22, tzinfo=UTC)
    )
    assert "Next: Mon 2026-03-30 22:00, Tue 2026-03-31 22:00, Wed 2026-04-01 22:00" in told
    assert "at most 5 trials" in " ".join(told.split())
