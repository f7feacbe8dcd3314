import contextlib
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from nightsmith.record import events
from nightsmith.record.workspace import Workspace


def test_an_event_comes_back_as_it_was_appended(ws: Workspace) -> None:
    at = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
    event = events.append(
        ws, "s1", "job_progress", trial=2, job="0123456789ab", data={"loss": 1.5, "phase": "träin"}, now=lambda: at
    )
    assert events.read(ws) == [event]
    assert (event.seq, event.at, event.trial, event.job) == (1, at, 2, "0123456789ab")


def test_a_reader_follows_the_stream_of_one_study_from_where_it_was(ws: Workspace) -> None:
    for number in range(6):
        events.append(ws, f"s{number % 2 + 1}", "job_progress", data={"number": number})
    first = events.read(ws, study="s1", limit=2)
    assert [event.data["number"] for event in first] == [0, 2]
    rest = events.read(ws, study="s1", after=first[-1].seq)
    assert [event.data["number"] for event in rest] == [4]
    assert [event.seq for event in events.read(ws)] == [1, 2, 3, 4, 5, 6]


def test_an_event_inside_a_transaction_is_seen_only_if_that_is_committed(ws: Workspace) -> None:
    with contextlib.suppress(RuntimeError), ws.write() as db:
        events.insert(db, "s1", "job_started")
        raise RuntimeError
    assert events.read(ws) == []


def test_an_unknown_kind_is_refused(ws: Workspace) -> None:
    with pytest.raises(ValidationError):
        events.append(ws, "s1", "party")  # pyright: ignore[reportArgumentType]
