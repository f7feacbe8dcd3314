"""`nightsmith show STUDY --decisions`: what the planner was asked and said, and whether it would say so again."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from nightsmith.agent import dossier
from nightsmith.agent.escape import visible
from nightsmith.agent.opening import existing
from nightsmith.agent.planner import Backend, identity
from nightsmith.agent.remote import say_remote
from nightsmith.agent.settings import load_settings
from nightsmith.record import studies
from nightsmith.record.digest import Contract, canonical_json, sha256
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace

SAME, OTHER = 0, 3
"""Exit status of a replay."""
WIDEST = 160
"""Characters of an answer in a list."""


class CannotReplay(NightsmithError):
    """There is no such decision, or it was made before whole prompts were kept."""


class Decision(Contract):
    """One decision of the planner, as `--json` prints it."""

    number: int = Field(ge=1)
    """In the order in which they were made."""
    kind: str
    """interpret, propose or converse."""
    at: str | None
    """When, UTC; null: made before that was kept."""
    prompt_digest: str
    """SHA-256 of the messages, as canonical JSON."""
    schema_digest: str | None
    """SHA-256 of the first answer's schema, as canonical JSON; null: none was kept."""
    seed: int | None
    """Seed of the request."""
    backend: dict[str, Any]
    """Which planner: address and model (null: the embedded one), digest of its adapter, how it was spoken to."""
    answers: tuple[str, ...]
    """As the model wrote them: the first, and one after each error."""
    errors: tuple[str, ...]
    """What was wrong with each answer that could not stand."""
    result: Any
    """What came of it: status, proposals or utterance; null: no answer could stand, or it was not kept."""
    wall_s: float
    """Seconds that the answers took."""


class Replay(Contract):
    """A decision asked for again."""

    number: int
    """Which."""
    equal: bool
    """Whether every answer is the same, character by character."""
    answers: tuple[str, ...]
    """As they are now, to the same prompts and schemas."""
    before: tuple[str, ...]
    """As they were."""
    planner: dict[str, Any]
    """Which planner answered now, where it is not the one that did; else empty."""


def show(study: str, path: Path | None, *, as_json: bool) -> int:
    """List every decision of a study."""
    ws = existing(path)
    studies.get(ws, study)
    found = [_decision(number, kept) for number, kept in enumerate(dossier.transcripts(ws, study), 1)]
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in found], indent=1, ensure_ascii=False))
    else:
        print("\n".join(line for each in found for line in _lines(each)) or f"The planner decided nothing in {study}.")
    return 0


def replay(study: str, number: int, path: Path | None, *, as_json: bool) -> int:
    """Ask again what was asked. Exit status 0: the same answers; 3: others."""
    ws = existing(path)
    studies.get(ws, study)
    settings = load_settings(Path(dossier.load(ws, study, "folder") or Path.cwd()))
    say_remote(settings)
    kept = _kept(ws, study, number)
    backend = settings.backend()
    answers = asyncio.run(_asked_again(ws, study, kept, backend))
    now, before = identity(backend), kept["backend"]
    changed = {name: value for name, value in now.items() if before.get(name, value) != value}
    told = Replay(
        number=number, equal=list(answers) == kept["answers"], answers=answers, before=tuple(kept["answers"]),
        planner=changed,
    )  # fmt: skip
    print(told.model_dump_json(indent=1) if as_json else "\n".join(_replayed(told)))
    return SAME if told.equal else OTHER


def _kept(ws: Workspace, study: str, number: int) -> dict[str, Any]:
    found = dossier.transcripts(ws, study)
    if not 1 <= number <= len(found):
        raise CannotReplay(f"{study} has no decision {number}; it has {len(found)}: `show {study} --decisions`.")
    kept = found[number - 1]
    digests = {each["schema_digest"] for each in kept.get("asked", ())}
    if not digests or any(dossier.schema(ws, study, digest) is None for digest in digests):
        raise CannotReplay(f"Decision {number} of {study} was made before whole prompts were kept, or its are gone.")
    return kept


async def _asked_again(ws: Workspace, study: str, kept: dict[str, Any], backend: Backend) -> tuple[str, ...]:
    limits = {name: kept[name] for name in ("max_tokens", "temperature", "seed")}
    answers: list[str] = []
    for each in kept["asked"]:
        schema = dossier.schema(ws, study, each["schema_digest"])
        assert schema is not None
        answers.append((await backend.complete([*kept["messages"], *each["added"]], schema, **limits)).text)
    return tuple(answers)


def _decision(number: int, kept: dict[str, Any]) -> Decision:
    return Decision(
        number=number, kind=kept["decision"], at=kept.get("at"),
        prompt_digest=sha256(canonical_json(kept.get("messages", []))), schema_digest=kept.get("schema_digest"),
        seed=kept.get("seed"), backend=kept.get("backend", {}), answers=tuple(kept.get("answers", ())),
        errors=tuple(kept.get("errors", ())), result=kept.get("result"), wall_s=kept.get("wall_s", 0.0),
    )  # fmt: skip


def _lines(decision: Decision) -> Iterator[str]:
    """Texts of a model and of the server are shown with their control characters made visible."""
    when = f" at {decision.at}" if decision.at else ""
    yield f"{decision.number}  {decision.kind}{when}, {decision.wall_s:.1f} s"
    digests = {"prompt": decision.prompt_digest, "schema": decision.schema_digest}
    known = [f"{name} {digest[:12]}" for name, digest in digests.items() if digest]
    yield f"   {', '.join([*known, f'seed {decision.seed}', *_who(decision.backend)])}"
    for place, answer in enumerate(decision.answers):
        yield f"   answer  {visible(_short(answer))}"
        if place < len(decision.errors):
            yield f"   error   {visible(_short(decision.errors[place]))}"
    result = json.dumps(decision.result, ensure_ascii=False) if decision.result is not None else "no answer could stand"
    yield f"   result  {visible(_short(result))}"


def _who(backend: dict[str, Any]) -> Iterator[str]:
    yield (
        visible(f"{backend['url']} {backend.get('model') or ''}".strip()) if backend.get("url") else "embedded planner"
    )
    if backend.get("adapter_digest"):
        yield f"adapter {backend['adapter_digest'][:12]}"


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[:WIDEST]} … ({len(text)} characters)"


def _replayed(told: Replay) -> Iterator[str]:
    yield f"Decision {told.number}: {'the same' if told.equal else 'ANOTHER'} answer."
    if told.planner:
        yield f"It was asked of another planner than the one that decided: {visible(json.dumps(told.planner))}."
    for now, before in zip(told.answers, told.before, strict=False):
        if now != before:
            yield f"  before  {visible(before)}"
            yield f"  now     {visible(now)}"
