"""Nights on a clock that only moves when told to. Studies are played; schedules, approvals and record are real."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_nights import PLAN, SPEC, Killed, Nights, asks, dies, ends, interrupted, raises
from study_factory import workspace_in_memory

from nightsmith.agent import account, dossier, history, night, night_view, window
from nightsmith.agent.standing import lock_name
from nightsmith.agent.study import Desk, Ending
from nightsmith.agent.window import Window
from nightsmith.record import approvals, audit, budget, schedules, studies
from nightsmith.record.budget import Budget
from nightsmith.record.digest import sha256
from nightsmith.record.errors import NightsmithError
from nightsmith.record.recurrence import DAYS, following

PARIS = ZoneInfo("Europe/Paris")


def paris(day: int, clock: str = "22:00", month: int = 3) -> datetime:
    """A moment of spring 2026 by the clock on the wall; clocks go forward in the night to Sunday, 29 March."""
    hour, minute = map(int, clock.split(":"))
    return datetime(2026, month, day, hour, minute, tzinfo=PARIS)


@pytest.fixture
def nights() -> Iterator[Nights]:
    with workspace_in_memory() as ws:
        yield Nights(ws, paris(23, "12:00"))


def test_a_week_with_a_reboot_an_overlap_two_missed_nights_and_a_clock_change(nights: Nights) -> None:
    row = nights.schedule()
    nights.acts = [ends(5), dies(3), ends(3, "NOT_MET"), ends(25), ends(3), ends(2)]
    assert nights.wake(at=paris(23)) == 0
    with pytest.raises(Killed):
        nights.wake(at=paris(24))
    assert nights.wake(at=paris(25, "01:05")) == 3  # after the reboot the study of Tuesday goes on
    assert nights.wake(at=paris(25)) == 0  # runs until Thursday 23:00
    assert nights.wake(at=paris(29, "09:00")) == 0  # off on Friday and Saturday
    assert nights.wake(at=paris(29)) == 0
    assert nights.told(row) == [
        ("Mon 22:00", "MET"), ("Tue 22:00", "NOT_MET"), ("Wed 22:00", "MET"), ("Thu 22:00", "skipped"),
        ("Fri 22:00", "missed"), ("Sat 22:00", "MET"), ("Sun 22:00", "MET"),
    ]  # fmt: skip
    assert [study for study, _ in nights.driven] == ["s1", "s2", "s2", "s3", "s4", "s5"]
    _, tuesday, _, thursday, friday, saturday, sunday = nights.rows(row)
    assert nights.wall(tuesday.ended_at, row) == "Wed 04:05"
    assert "s3, of the night before, was still running" in thursday.note
    assert "caught up once" in friday.note
    assert nights.wall(saturday.ends_at, row) == "Sun 18:00"  # after its window: as long as a night, from now
    assert nights.wall(sunday.ends_at, row) == "Mon 07:00"


def test_calling_again_runs_nothing_again(nights: Nights) -> None:
    row = nights.schedule()
    assert nights.wake(at=paris(23, "21:59")) == 0
    assert nights.told(row) == []
    for minute in (0, 1, 2):
        assert nights.wake(at=paris(24, f"03:0{minute}")) == 0
    assert nights.told(row) == [("Mon 22:00", "MET")]


def test_a_late_start_inside_the_window_ends_with_the_window(nights: Nights) -> None:
    row = nights.schedule()
    nights.wake(at=paris(24, "02:00"))
    assert nights.wall(nights.rows(row)[0].ends_at, row) == "Tue 07:00"
    given = window.of(nights.ws, "s1")
    assert nights.wall(given.ends_at, row) == "Tue 06:59"  # the margin for the report


def test_without_catching_up_a_night_is_run_inside_its_window_or_not_at_all(nights: Nights) -> None:
    row = nights.schedule(catch_up=False)
    open_ended = nights.schedule("open", catch_up=False, until=None)
    nights.wake(at=paris(23, "22:20"))
    nights.wake(at=paris(25, "09:00"))
    for each in (row, open_ended):
        assert nights.told(each) == [("Mon 22:00", "MET"), ("Tue 22:00", "missed")]
    assert "--no-catch-up" in nights.rows(row)[1].note


def test_now_runs_a_night_of_full_length_whether_due_or_not(nights: Nights) -> None:
    row = nights.schedule()
    nights.wake(forced=True, at=paris(23, "12:30"))
    nights.wake(at=paris(23, "22:00"))
    assert nights.told(row) == [("Mon 12:30", "MET"), ("Mon 22:00", "MET")]
    assert nights.wall(nights.rows(row)[0].ends_at, row) == "Mon 21:30"


def test_the_study_starts_from_the_goal_as_it_was_approved(nights: Nights) -> None:
    nights.schedule()
    nights.wake(at=paris(23))
    assert dossier.goal_spec(nights.ws, "s1") == SPEC
    assert dossier.load(nights.ws, "s1", "folder") == "/folder"
    assert dossier.load(nights.ws, "s1", "interpretation")["num_answers"] == 0


def test_one_schedule_waits_for_a_person_and_the_other_goes_on(nights: Nights, capsys) -> None:
    first, second = nights.schedule("first"), nights.schedule("second")
    nights.acts = [asks("Which target?"), ends(1)]
    assert nights.wake(at=paris(23)) == 6
    assert nights.told(first) == [("Mon 22:00", "waiting")]
    assert nights.told(second) == [("Mon 22:00", "MET")]
    assert "Which target?" in nights.rows(first)[0].note
    assert "Which target?" in capsys.readouterr().err


def test_a_schedule_whose_study_waits_starts_no_other_until_a_person_ended_it(nights: Nights) -> None:
    row = nights.schedule()
    nights.acts = [asks("Which target?"), ends(1)]
    nights.wake(at=paris(23))
    assert nights.wake(at=paris(24)) == 6
    assert "s1, of an earlier night, still waits" in nights.rows(row)[1].note
    studies.finish(nights.ws, "s1", "STOPPED")
    assert nights.wake(at=paris(25)) == 0
    assert nights.told(row) == [("Mon 22:00", "waiting"), ("Tue 22:00", "waiting"), ("Wed 22:00", "MET")]
    assert night_view.night(nights.ws, row, nights.rows(row)[0]).outcome == "STOPPED"  # as it is now


def test_an_expired_approval_starts_nothing_until_it_is_renewed(nights: Nights) -> None:
    row = nights.schedule(valid_days=1)
    assert nights.wake(at=paris(23)) == 0
    assert nights.wake(at=paris(24)) == 6
    assert nights.rows(row)[1].study is None
    assert "night renew weeknights" in nights.rows(row)[1].note
    nights.approve(row)
    assert nights.wake(at=paris(25)) == 0


def test_an_approval_that_was_revoked_or_changed_starts_nothing(nights: Nights) -> None:
    row = nights.schedule()
    with nights.ws.write() as db:
        db.execute("UPDATE approvals SET approval = replace(approval, '\"max_trials\":5', '\"max_trials\":50')")
    assert nights.wake(at=paris(23)) == 6
    assert "changed after it was given" in nights.rows(row)[0].note
    approvals.revoke(nights.ws, row.account)
    assert nights.wake(at=paris(24)) == 6
    assert nights.driven == []


def test_a_plan_beyond_the_standing_envelope_waits_with_the_reason(nights: Nights) -> None:
    row = nights.schedule()
    nights.plan = PLAN.model_copy(update={"max_trials": 50, "job_limit_s": 1e6})
    assert nights.wake(at=paris(23)) == 6
    note = nights.rows(row)[0].note
    assert "trials: 50, approved 5" in note
    assert "seconds for one job" in note


def test_a_budget_that_was_raised_in_the_studys_papers_waits(nights: Nights) -> None:
    row = nights.schedule()

    def raises_its_budget(nights: Nights, study: str, desk: object) -> object:
        paper = dossier.load(nights.ws, study, "interpretation")
        paper["spec"]["budget"]["max_trials"] = 500
        dossier.save(nights.ws, study, "interpretation", paper)
        return ends(1)(nights, study, desk)  # type: ignore[arg-type]

    nights.acts = [raises_its_budget]  # type: ignore[list-item]
    assert nights.wake(at=paris(23)) == 6
    assert "the goal is another one" in nights.rows(row)[0].note


def test_another_users_approval_covers_nothing(nights: Nights) -> None:
    row = nights.schedule()
    given = schedules.standing(nights.ws, row, nights.now)
    forged = given.model_copy(update={"by": "somebody-else"})
    text, digest = forged.canonical(), sha256(forged.canonical())
    with nights.ws.write() as db:
        seq = audit.append(db, "approval.granted", {"study": row.account, "hash": digest})
        values = (row.account, text, digest, seq)
        db.execute("INSERT INTO approvals (study, approval, hash, audit_seq) VALUES (?, ?, ?, ?)", values)
    assert nights.wake(at=paris(23)) == 6
    assert "was approved by somebody-else" in nights.rows(row)[0].note


def test_a_second_call_while_a_night_runs_leaves_at_once_and_says_who_runs_it(nights: Nights, capsys) -> None:
    row = nights.schedule()
    with nights.ws.lock(row.lock):
        assert nights.wake(at=paris(23)) == 0
    assert "held by process" in capsys.readouterr().err
    assert nights.told(row) == []


def test_a_study_that_cannot_go_on_is_tried_once_more_then_left_to_a_person(nights: Nights) -> None:
    row = nights.schedule()
    nights.acts = [raises(NightsmithError("No planner answers.")), raises(NightsmithError("Still none.")), ends(1)]
    assert nights.wake(at=paris(23)) == 6
    assert nights.rows(row)[0].ended_at is None
    assert nights.wake(at=paris(24)) == 6
    assert nights.told(row) == [("Mon 22:00", "failed"), ("Tue 22:00", "MET")]
    assert "nightsmith resume s1" in nights.rows(row)[0].note


def test_a_bug_in_one_night_is_told_and_does_not_cost_the_others_theirs(nights: Nights, capsys) -> None:
    first, second = nights.schedule("first"), nights.schedule("second")
    nights.acts = [raises(ZeroDivisionError("oops")), ends(1)]
    assert nights.wake(at=paris(23)) == 1
    assert "Traceback" in capsys.readouterr().err
    assert "ZeroDivisionError: oops" in nights.rows(first)[0].note
    assert nights.told(second) == [("Mon 22:00", "MET")]


def test_an_interrupted_night_ends_the_call_and_goes_on_at_the_next(nights: Nights) -> None:
    first, second = nights.schedule("first"), nights.schedule("second")
    nights.acts = [interrupted, ends(1)]
    assert nights.wake(at=paris(23)) == 130
    assert nights.told(second) == []
    assert nights.wake(at=paris(23, "22:10")) == 0
    assert nights.told(first) == [("Mon 22:00", "MET")]
    assert nights.told(second) == [("Mon 22:00", "MET")]


def test_a_study_that_was_cut_off_is_ended_before_the_next_night_begins(nights: Nights) -> None:
    row = nights.schedule()
    nights.acts = [dies(1), ends(0.01, "NOT_MET"), ends(1)]
    with pytest.raises(Killed):
        nights.wake(at=paris(23))
    assert nights.wake(at=paris(24)) == 3
    assert nights.told(row) == [("Mon 22:00", "NOT_MET"), ("Tue 22:00", "MET")]


def test_a_study_that_was_cut_off_waits_where_the_approval_has_expired_meanwhile(nights: Nights) -> None:
    row = nights.schedule(valid_days=1)
    nights.acts = [dies(1), ends(1)]
    with pytest.raises(Killed):
        nights.wake(at=paris(23))
    assert nights.wake(at=paris(25)) == 6
    assert len(nights.driven) == 1
    assert nights.rows(row)[0].outcome == "waiting"


def test_an_occurrence_that_was_claimed_and_got_no_study_is_due_again(nights: Nights) -> None:
    row = nights.schedule()
    schedules.begin(nights.ws, row.id, following(row.recurrence, nights.now())[0], now=lambda: paris(23))
    assert nights.wake(at=paris(23, "22:05")) == 0
    assert nights.told(row) == [("Mon 22:00", "MET")]


def test_the_report_of_a_night_names_the_schedule_that_started_it(nights: Nights) -> None:
    nights.schedule()
    nights.wake(at=paris(23))
    assert account.night_words(history.load(nights.ws, "s1")) == (
        "Nobody was watching: the schedule weeknights started it, due Mon 2026-03-23 22:00 until 07:00 (Europe/Paris)."
    )
    assert account.night_words(history.load(nights.ws, studies.create(nights.ws, "By hand."))) == ""


def test_a_schedule_that_is_removed_while_its_night_runs_lets_it_end_and_starts_no_other(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    row = nights.schedule()

    def is_removed_meanwhile(nights: Nights, study: str, desk: Desk) -> Ending:
        assert nights.ask_approval(study, desk)
        with nights.ws.lock(lock_name(study)):
            night.remove("weeknights", nights.ws.root, now=nights.now)
        studies.finish(nights.ws, study, "MET")
        return Ending.DONE

    nights.acts = [is_removed_meanwhile]
    nights.wake(at=paris(23))
    assert nights.told(row) == [("Mon 22:00", "MET")]
    assert "still running and goes on to its end; to end it now: nightsmith stop s1" in capsys.readouterr().out
    nights.wake(at=paris(24))
    assert [study for study, _ in nights.driven] == ["s1"]


def test_exit_statuses_of_several_schedules_are_told_by_the_gravest(nights: Nights) -> None:
    for name in ("a", "b", "c"):
        nights.schedule(name)
    nights.acts = [ends(0.1), ends(0.1, "NOT_MET"), ends(0.1, "BLOCKED")]
    assert nights.wake(at=paris(23)) == 5


def test_the_window_narrows_what_is_planned_and_closes_the_account() -> None:
    now, end = paris(23), paris(24, "07:00")
    given = Window(ends_at=end)
    assert given.narrowed(SPEC, lambda: now).budget.wall_clock_s == 9 * 3600
    short = SPEC.model_copy(update={"budget": Budget(wall_clock_s=60)})
    assert given.narrowed(short, lambda: now).budget.wall_clock_s == 60
    assert given.deadline(lambda: now) == end
    assert given.deadline(lambda: end + timedelta(hours=2)) is None  # a person who approves later is not bound by it
    with workspace_in_memory() as ws:
        budget.open_account(ws, "s1", Budget(wall_clock_s=1e6), ends_at=end, now=lambda: now)
        assert budget.balance(ws, "s1", now=lambda: now).left.deadline_s == 9 * 3600
        assert budget.balance(ws, "s1", now=lambda: end).left.deadline_s == 0


def test_the_morning_is_told_in_eighty_columns(nights: Nights) -> None:
    row = nights.schedule()
    nights.acts = [ends(5), asks("Which of the two folders is meant, ./corpus or ./corpus-old? " * 3)]
    nights.wake(at=paris(23))
    nights.wake(at=paris(24))
    nights.wake(at=paris(27, "23:00"))
    told = "\n\n".join(night_view.night_lines(night_view.night(nights.ws, row, one)) for one in nights.rows(row))
    assert max(map(len, told.splitlines())) <= 80
    assert "Mon 2026-03-23 22:00  weeknights  s1  MET" in told
    assert "Fri 2026-03-27 22:00, begun" not in told  # held back: not begun
    listed = night_view.schedule_lines(nights.ws, row, schedules.valid_approval(nights.ws, row, nights.now), nights.now)
    assert max(map(len, listed.splitlines())) <= 80


@given(
    at=st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59)),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    gaps=st.lists(st.floats(min_value=0.0, max_value=100.0), min_size=1, max_size=8),
    acts=st.lists(st.sampled_from([ends(0.5), ends(30), dies(1), interrupted]), min_size=1, max_size=8),
    catch_up=st.booleans(),
)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_every_occurrence_has_one_study_and_none_is_ahead_of_time(at, days, gaps, acts, catch_up):
    with workspace_in_memory() as ws:
        nights = Nights(ws, paris(23, "12:00"), acts=[*acts, ends(1)])
        row = nights.schedule(at=at, until=None, days=tuple(sorted(days, key=DAYS.index)), catch_up=catch_up)
        for gap in gaps:
            try:
                nights.wake(at=nights.at + timedelta(hours=gap))
            except Killed:
                continue
        rows = nights.rows(row)
        begun = [one.study for one in rows if one.study]
        assert len(set(begun)) == len(begun) == len(studies.all(ws))
        assert len({one.due_at for one in rows}) == len(rows)
        assert all(one.due_at <= one.started_at for one in rows if one.started_at)
        assert all(one.due_at <= nights.at.astimezone(UTC) for one in rows)
