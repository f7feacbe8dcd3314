"""What a person told a running study: settings to leave alone, settings to try next. Inside the approved plan only.

What was told are events, so that any process can tell and the one that drives hears: nothing else is kept. The newest
word on a setting holds. A setting to try is one proposal; it is open until a trial changed it, or could not.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationError

from nightsmith.agent import dossier
from nightsmith.agent.conversing import Utterance
from nightsmith.agent.proposals import SETTINGS, Direction, Proposal, ProposeRequest
from nightsmith.record import events, studies
from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError
from nightsmith.record.events import Event
from nightsmith.record.workspace import Workspace

_ANY: Direction = "tune"
_WHY = "Asked for by a person."
_DROPPED = "Proposal dropped"
"""How a warning begins that says a proposal could not be carried out."""


class CannotSteer(NightsmithError):
    """What was told cannot be heeded; says what can."""


class Wish(Contract):
    """What is to become of one setting; the data of a `told` event."""

    text: str
    """The person's words."""
    meant: Literal["avoid", "try"]
    """What the planner took them for."""
    setting: str
    """Setting of the recipe."""
    direction: Direction | None = None
    """Which way; null: any."""


def tell(ws: Workspace, study: str, text: str, meant: Utterance) -> str:
    """Record what was told. Returns what will come of it. Raises CannotSteer where nothing can."""
    if meant.kind not in ("avoid", "try") or meant.setting is None:
        raise CannotSteer(f"Not understood as something to leave alone or to try. {possible(ws, study)}")
    if (row := studies.get(ws, study)).outcome is not None:
        raise CannotSteer(f"{study} has ended ({row.outcome}); begin a new study to try something else.")
    if meant.setting not in tunable(ws, study):
        raise CannotSteer(f"Trials of {study} do not change {meant.setting}. {possible(ws, study)}")
    wish = Wish(text=text, meant=meant.kind, setting=meant.setting, direction=meant.direction)
    events.append(ws, study, "told", data=wish.model_dump(mode="json"))
    where = "" if meant.direction in (None, "tune") else f" ({meant.direction})"
    if meant.kind == "avoid":
        return f"Noted: {meant.setting}{where} is left alone from the next proposal on; trials that run go on."
    return f"Noted: {meant.setting}{where} is the next proposal, if the plan still holds a trial."


def tunable(ws: Workspace, study: str) -> tuple[str, ...]:
    """Settings that trials of the study may change; empty before there is a plan."""
    if dossier.load(ws, study, "plan") is None:
        return ()
    return tuple(each.name for each in dossier.study_plan(ws, study).space if each.name in SETTINGS)


def possible(ws: Workspace, study: str) -> str:
    """What the study can be told, in a sentence."""
    settings = tunable(ws, study)
    if not settings:
        return f"{study} has no plan yet; a setting can be named once it has one."
    return f'Say for example "leave the {settings[0]} alone" or "try a lower {settings[0]}"; settings: ' + (
        f"{', '.join(settings)}."
    )


def steered(ws: Workspace, study: str, request: ProposeRequest) -> ProposeRequest:
    """The question to the planner without what is to be left alone."""
    avoided = [wish for wish, _ in _newest(ws, study) if wish.meant == "avoid"]
    whole = {wish.setting for wish in avoided if wish.direction in (None, "tune")}
    barred: list[tuple[str, Direction]] = []
    for wish in avoided:
        if wish.direction is not None and wish.setting not in whole:
            barred.extend((wish.setting, way) for way in (wish.direction, _ANY))
    kept = tuple(state for state in request.settings if state.name not in whole)
    return request.model_copy(update={"settings": kept, "barred": (*request.barred, *barred)})


def wanted(ws: Workspace, study: str) -> list[Proposal]:
    """Open wishes to try something, as proposals, oldest first."""
    stream = events.read(ws, study=study)
    wishes = [wish for wish, at in _newest(ws, study) if wish.meant == "try" and not _is_heard(wish, stream, at)]
    return [
        Proposal(
            move=SETTINGS[wish.setting],
            setting=wish.setting,
            direction=wish.direction or "tune",
            hypothesis=_WHY,
            alone=True,
        )
        for wish in wishes
    ]


def left_alone(ws: Workspace, study: str) -> frozenset[str]:
    """Settings that a person wants left alone, in any direction."""
    return frozenset(wish.setting for wish, _ in _newest(ws, study) if wish.meant == "avoid")


def _newest(ws: Workspace, study: str) -> list[tuple[Wish, int]]:
    """The newest wish on each setting, with its place in the stream; in order."""
    known: dict[str, tuple[Wish, int]] = {}
    for event in events.read(ws, study=study):
        if event.kind == "told" and (wish := _wish(event)) is not None:
            known[wish.setting] = (wish, event.seq)
    return sorted(known.values(), key=lambda found: found[1])


def _wish(event: Event) -> Wish | None:
    """The wish of an event; None where it is of another version."""
    try:
        wish = Wish.model_validate(event.data)
    except ValidationError:
        return None
    return wish if wish.setting in SETTINGS else None


def _is_heard(wish: Wish, stream: list[Event], at: int) -> bool:
    """Whether a later trial changed the setting, or a later proposal of it was dropped."""
    return any(_is_about(event, wish.setting) for event in stream if event.seq > at)


def _is_about(event: Event, setting: str) -> bool:
    if event.kind == "trial_proposed":
        change = event.data.get("change")
        return isinstance(change, Mapping) and setting in change
    return event.kind == "warning" and str(event.data.get("reason", "")).startswith(_DROPPED) and (
        event.data.get("setting") == setting
    )  # fmt: skip
