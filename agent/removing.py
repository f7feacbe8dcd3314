"""`nightsmith gc`: shows which checkpoints nobody needs and how large they are, asks, and removes them."""

import json
import sys
from collections import Counter
from pathlib import Path

from nightsmith.agent import figures
from nightsmith.agent.opening import found
from nightsmith.agent.retention import Removal, Retention, remove, retention
from nightsmith.model.capacity.units import size
from nightsmith.record.errors import NotApproved

WAITS = NotApproved.exit_code


def collect(path: Path | None, *, best: int, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Show, ask, remove. Exit status 6 where nobody is there to ask and `--yes` was not given."""
    ws = found(path)
    seen = retention(ws, best=best) if ws else Retention(removals=(), kept=())
    if not as_json:
        print(_shown(seen))
    wanted = bool(seen.removals) and not dry_run
    agreed = wanted and (yes or (not as_json and _agrees()))
    removed = remove(ws, seen, best=best) if ws and agreed else None
    if as_json:
        told = {"removed": removed is not None, "num_bytes": (removed or seen).num_bytes}
        print(json.dumps(told | (removed or seen).model_dump(mode="json")))
    elif removed is not None:
        print(f"Removed: {size(removed.num_bytes)}.")
    elif wanted:
        print("Nothing was removed; --yes removes without asking.")
    return WAITS if wanted and not agreed and not sys.stdin.isatty() else 0


def _agrees() -> bool:
    return sys.stdin.isatty() and input("Remove them? Results, events and logs stay. [y/N] ").lower() in ("y", "yes")


def _shown(seen: Retention) -> str:
    going, staying = [_line(each) for each in seen.removals], Counter[str]()
    for kept in seen.kept:
        staying[kept.reason] += kept.num_bytes
    begins = f"Nobody needs the checkpoints of {figures.counted(len(going), 'job')}, {size(seen.num_bytes)}:"
    stays = [f"  {size(num_bytes)}: {reason}" for reason, num_bytes in staying.items()]
    return "\n".join(
        [
            begins if going else "There is no checkpoint that nobody needs.",
            *going,
            *(["What stays:"] if stays else []),
            *stays,
        ]
    )


def _line(removal: Removal) -> str:
    of = f"{removal.study}, trial {removal.trial}" if removal.trial is not None else removal.study
    names = ", ".join(Path(folder).name for folder in removal.folders)
    return f"  {removal.job} ({of}): {names}, {size(removal.num_bytes)}"
