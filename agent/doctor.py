"""`nightsmith doctor`: what works on this machine. Exit 0 where `run` can work, 5 where something needed is missing."""

import asyncio
import json
import shutil
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nightsmith.agent import probes
from nightsmith.agent.probes import Check, State, found, missing
from nightsmith.record.errors import NightsmithError

BLOCKED = 5
WIDEST = 100
ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {"status": {"enum": ["ready"]}},
    "required": ["status"],
    "additionalProperties": False,
}
_PULL = "`nightsmith model pull planner`, or planner.url in nightsmith.toml"


def examine(workspace: Path | None, *, as_json: bool) -> int:
    """Probe everything, print a line each; the planner last, since it may have to be started."""
    checks: list[Check] = []
    for check in _checks(workspace):
        checks.append(check)
        if not as_json:
            print(_line(check), flush=True)
    absent = [check.name for check in checks if check.needed and check.state is State.MISSING]
    if as_json:
        print(json.dumps({"ok": not absent, "checks": [check.model_dump(mode="json") for check in checks]}, indent=1))
    else:
        lacking = f"Needed and missing: {', '.join(absent)}."
        print(f"\n{lacking if absent else 'Everything that `nightsmith run` needs is here.'}")
    return BLOCKED if absent else 0


def _checks(workspace: Path | None) -> Iterator[Check]:
    imported = probes.torch()
    yield probes.python()
    yield probes.machine()
    yield probes.packages()
    yield from probes.places(workspace)
    yield probes.engine()
    yield from probes.sandboxes()
    yield from probes.schedulers()
    yield from probes.cluster()
    yield probes.offline()
    yield from imported()
    yield from planner()


def planner() -> Iterator[Check]:
    """Weights, server, and how long one short decision takes."""
    try:
        from nightsmith.agent.settings import load_settings
        from nightsmith.model import pull

        settings = load_settings()
        if settings.planner.url is None:
            weights = probes.cache_path() / pull.PLANNER.name
            if not pull.is_intact(weights, pull.PLANNER):
                told = "damaged" if weights.is_file() else "not in the cache"
                yield missing("planner's weights", f"{weights} {told}", f"{_PULL}.", needed=True)
                return
            yield found("planner's weights", f"{weights}, as pinned", needed=True)
        yield _decision(settings)
    except NightsmithError as error:  # says itself how to mend it
        yield missing("planner", str(error), "", needed=True)
    except (ImportError, OSError) as error:
        yield missing("planner", str(error), f"{_PULL}.", needed=True)


def _decision(settings: Any) -> Check:
    backend = settings.backend()
    begun = time.monotonic()
    asked = [{"role": "user", "content": 'Answer {"status": "ready"}.'}]
    answer = asyncio.run(backend.complete(asked, ANSWER, max_tokens=12))
    waited = time.monotonic() - begun
    where = settings.planner.url or "embedded"
    if not _keeps_to_schema(answer.text):
        told = f"{where}: it answered {answer.text[:60]!r} outside the schema"
        return missing("planner", told, "Serve it by an engine with response_format json_schema.", needed=True)
    took = f"a short decision in {answer.wall_s:.1f} s ({waited:.1f} s with its start)"
    return found("planner", f"{where}: {took}", needed=True)


def _keeps_to_schema(text: str) -> bool:
    try:
        return json.loads(text) == {"status": "ready"}
    except ValueError:
        return False


def _line(check: Check) -> str:
    """The state, what, which, and on the next line how to get it."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    mark = "found" if check.state is State.FOUND else "MISSING" if check.needed else "absent"
    lines = textwrap.wrap(f"{check.name}: {check.detail}", width - 9, break_long_words=True) or [""]
    lines += textwrap.wrap(f"→ {check.mend}", width - 9) if check.mend else []
    return "\n".join(f"{mark if not number else '':8} {line}" for number, line in enumerate(lines))
