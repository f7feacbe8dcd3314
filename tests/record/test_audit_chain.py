import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightsmith.record import audit
from nightsmith.record.errors import Damaged
from nightsmith.record.workspace import Workspace

MakeWorkspace = Callable[[], contextlib.AbstractContextManager[Workspace]]
COLUMNS = ("at", "actor", "action", "detail")


def append(ws: Workspace, num: int) -> None:
    with ws.write() as db:
        for number in range(num):
            audit.append(db, "job.refused", {"number": number, "why": "no budget – «größer»"})


def test_lines_come_back_in_order_with_the_user_who_acted(ws: Workspace) -> None:
    append(ws, 3)
    lines = audit.read(ws)
    assert [(line.seq, line.detail["number"]) for line in lines] == [(1, 0), (2, 1), (3, 2)]
    assert {line.actor for line in lines} == {audit.os_user()}
    assert audit.verify(ws) is None


def test_the_user_is_the_kernels_word_not_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    before = audit.os_user()
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("LOGNAME", "somebody")
    assert audit.os_user() == before


def test_a_line_goes_with_the_transaction_that_wrote_it(ws: Workspace) -> None:
    append(ws, 1)
    with contextlib.suppress(RuntimeError), ws.write() as db:
        audit.append(db, "job.refused", {})
        raise RuntimeError
    append(ws, 1)
    assert [line.seq for line in audit.read(ws)] == [1, 2]
    assert audit.verify(ws) is None


def test_a_detail_that_is_not_json_is_refused(ws: Workspace) -> None:
    with pytest.raises(ValueError, match="JSON"), ws.write() as db:
        audit.append(db, "job.refused", {"loss": float("nan")})


def test_an_empty_chain_is_whole_and_an_emptied_one_is_not(ws: Workspace) -> None:
    assert audit.verify(ws) is None
    append(ws, 2)
    with ws.write() as db:
        db.execute("DELETE FROM audit")
    assert audit.verify(ws) == 1


def test_a_chain_without_its_head_takes_no_more_lines(ws: Workspace) -> None:
    append(ws, 2)
    with ws.write() as db:
        db.execute("DELETE FROM audit_head")
    assert audit.verify(ws) == 3
    with pytest.raises(Damaged, match="head is gone"):
        append(ws, 1)


@settings(max_examples=40, deadline=None)
@given(num=st.integers(2, 8), place=st.integers(1, 8), other=st.integers(1, 8), data=st.data())
def test_edits_deletions_swaps_and_insertions_show_at_their_place(
    fresh_workspace: MakeWorkspace, num: int, place: int, other: int, data: st.DataObject
) -> None:
    first, second = sorted(((place - 1) % num + 1, (other - 1) % num + 1))
    with fresh_workspace() as ws:
        append(ws, num)
        with ws.write() as db:
            how = data.draw(st.sampled_from(["edit", "delete", "swap", "duplicate"]))
            if how == "edit":
                column = data.draw(st.sampled_from(COLUMNS))
                db.execute(f"UPDATE audit SET {column} = {column} || ' ' WHERE seq = ?", (first,))
            elif how == "delete":
                db.execute("DELETE FROM audit WHERE seq = ?", (first,))
            elif how == "duplicate":
                db.execute(
                    "INSERT INTO audit SELECT ?, at, actor, action, detail, hash FROM audit WHERE seq = ?",
                    (num + 1, first),
                )
                first = num + 1
            elif first != second:
                db.execute("UPDATE audit SET seq = -1 WHERE seq = ?", (first,))
                db.execute("UPDATE audit SET seq = ? WHERE seq = ?", (first, second))
                db.execute("UPDATE audit SET seq = ? WHERE seq = -1", (second,))
            else:
                first = 0
        assert audit.verify(ws) == (first or None)
