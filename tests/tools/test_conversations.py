"""From records to conversations: what becomes a turn, and which rows are left out."""

import datetime as dt
import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nightsmith.tools.data.conversations import OVERFLOW, ChatColumns, Conversation, as_text, conversation, turns_of

PAIR = ChatColumns(prompt="q", completion="a")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12"),
        (12.0, "12"),
        (0.1, "0.1"),
        (-3.5, "-3.5"),
        (True, "true"),
        (Decimal("1.50"), "1.50"),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (" kept as it is\n", " kept as it is\n"),
        ("lone \ud800", "lone \ufffd"),
        (math.nan, None),
        (math.inf, None),
        (None, None),
        ("", None),
        (" \n", None),
        (b"x", None),
        ([1], None),
        ({"a": 1}, None),
    ],
)
def test_values_become_text_as_people_write_them(value: object, text: str | None):
    assert as_text(value) == text


def test_a_pair_becomes_a_user_and_an_assistant_turn():
    found = conversation({"q": "2 + 2", "a": 4}, PAIR)
    assert found is not None
    assert json.loads(found.json) == [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]
    assert (found.text, found.opening, found.answer) == ("2 + 2\n4", "2 + 2", "4")


def test_an_empty_context_and_system_leave_no_trace():
    columns = ChatColumns(system="s", prompt="q", context="i", completion="a")
    full = conversation({"s": "be brief", "q": "sum up", "i": "long text", "a": "short"}, columns)
    bare = conversation({"s": "", "q": "sum up", "i": None, "a": "short"}, columns)
    assert full is not None
    assert full.turns == (("system", "be brief"), ("user", "sum up\n\nlong text"), ("assistant", "short"))
    assert bare == conversation({"q": "sum up", "a": "short"}, PAIR)


@pytest.mark.parametrize(
    "record", [{"q": "", "a": "x"}, {"q": "x", "a": " "}, {"q": "x"}, {}, {"q": "x", "a": "y", OVERFLOW: ["z"]}]
)
def test_a_row_without_prompt_or_answer_or_with_values_beyond_its_header_is_left_out(record: dict[str, object]):
    assert conversation(record, PAIR) is None


def test_a_row_that_only_ends_with_empty_values_is_kept():
    assert conversation({"q": "x", "a": "y", OVERFLOW: ["", " "]}, PAIR) is not None


USER, BOT = {"role": "user", "content": "u"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        ([USER, BOT], "ub"),
        ([{"from": "human", "value": "u"}, {"from": "gpt", "value": "b"}], "ub"),
        (json.dumps([USER, BOT]), "ub"),
        ([{"role": "system", "content": "s"}, USER, BOT, USER, BOT], "subub"),
        ([{"role": "system", "content": ""}, USER, BOT], "ub"),
        ([{"role": "system", "content": None}, USER, BOT], "ub"),
        ([USER, BOT, USER], "ub"),
        ([BOT, USER, BOT], "bub"),
        ([{"role": "User ", "content": [{"type": "text", "text": "u"}]}, BOT], "ub"),
    ],
)
def test_lists_of_turns_are_read_in_their_common_forms(value: object, roles: str):
    turns = turns_of(value)
    assert turns is not None
    assert "".join({"user": "u", "assistant": "b", "system": "s"}[role] for role, _ in turns) == roles


@pytest.mark.parametrize(
    "value",
    [
        [], [USER], [BOT], [USER, {"role": "tool", "content": "x"}, BOT], [USER, {"role": "assistant", "content": ""}],
        [USER, {"role": "user", "content": ""}, BOT], ["u", "b"], "plain text", "[not json", "[" * 9999, None, 3,
        [{"role": "user", "content": [{"type": "image"}]}, BOT], [{"role": 3, "content": "u"}, BOT],
    ],
)  # fmt: skip
def test_lists_that_are_no_whole_conversation_are_refused(value: object):
    assert turns_of(value) is None


def test_every_conversation_that_goes_on_from_a_prompt_has_the_same_opening():
    start = (("system", "s"), ("user", "u"), ("assistant", "b"))
    longer = (*start, ("user", "more"), ("assistant", "done"))
    assert Conversation(start).opening == Conversation(longer).opening == "s\nu"
    assert Conversation((("assistant", "hello"), *start[1:])).opening == "hello\nu"


turn = st.tuples(st.sampled_from(["user", "assistant", "system", "gpt", "tool"]), st.text(max_size=5))


@given(st.lists(turn, max_size=6))
def test_what_is_published_reads_back_as_the_same_conversation(turns: list[tuple[str, str]]):
    found = turns_of([{"role": role, "content": content} for role, content in turns])
    if found is not None:
        assert found[-1][0] == "assistant"
        assert turns_of(Conversation(found).json) == found
        assert Conversation(found).opening


@pytest.mark.parametrize(
    "columns",
    [{}, {"prompt": "q"}, {"messages": "m", "prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "q"}],
)
def test_columns_are_one_of_two_forms(columns: dict[str, str]):
    with pytest.raises(ValidationError):
        ChatColumns(**columns)
