"""What the judgement may use up: looks at sealed folds, and alpha on a dev split. Counted in the record (DESIGN §5).

Both counts are shared by every study of the workspace, both are taken before the figures are seen, and both are
idempotent: a crash after taking one does not cost a second.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nightsmith.evals.stats import spend_alpha
from nightsmith.record import audit
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.errors import Refused
from nightsmith.record.workspace import Workspace

LOOKS = 1
"""Studies that may look at one sealed fold."""
CONFIRMATIONS = 3
"""Confirmations that a study's share of alpha is divided by."""
STRENGTH: Literal["policy", "jail", "user"] = "policy"
STRENGTH_MEANING = (
    "policy: jobs receive only the published train and dev paths; nothing but this program's own rules keeps a process "
    "of the same user from reading the sealed files."
)


@dataclass(frozen=True)
class Confirmation:
    """The right to one confirmation."""

    night: int
    """Which study this is, from 1, among those that confirmed on the dev split."""
    number: int
    """Which confirmation of the study, from 1."""
    alpha: float
    """Level of the test."""


def take_look(ws: Workspace, folds: Sequence[str], study: str, *, looks: int = LOOKS, now: Clock = utc_now) -> str:
    """Take the study's one look; returns the digest of the fold that it may open, the same one whenever asked again.

    Args:
        ws: workspace.
        folds: digests of the sealed folds of the data, in the order in which they are to be used.
        study: study id.
        looks: studies that may look at one fold.
        now: clock.

    Raises:
        Refused: other studies have used up every fold. An audit line says so.
    """
    if isinstance(folds, str):  # a string is a sequence too, of one-letter folds that every study would find unused
        raise TypeError(f"folds must be a sequence of digests, not the single digest {folds!r}.")
    with ws.write() as db:
        fold = _fold(db, folds, study, looks)
        taken = fold is not None and _look(db, fold, study, now)
        if fold is None or taken:
            audit.append(
                db,
                "look.taken" if taken else "look.refused",
                {"study": study, "folds": [fold] if fold else list(folds)},
            )
    if fold is None:
        raise Refused(
            f"Study {study} may not look at the sealed data: {len(folds)} fold(s), {looks} look(s) each, all used by "
            "other studies. Build the data with more sealed folds, or from new sources, and run the study again."
        )
    return fold


def looks_left(ws: Workspace, folds: Sequence[str], *, looks: int = LOOKS) -> int:
    """Looks that are left on the folds, all together."""
    with ws.read() as db:
        return sum(max(looks - len(_lookers(db, fold)), 0) for fold in folds)


def take_confirmation(
    ws: Workspace, split: str, study: str, step: str, *, limit: int = CONFIRMATIONS, now: Clock = utc_now
) -> Confirmation:
    """Take the right to one confirmation on a dev split; the same step gets the same right whenever asked again.

    Args:
        ws: workspace.
        split: digest of the dev split.
        study: study id.
        step: the confirmation's step in the study.
        limit: confirmations per study, as declared in its plan: the same number throughout, as alpha is divided by it.
        now: clock.

    Raises:
        Refused: the study has used its confirmations. An audit line says so.
    """
    with ws.write() as db:
        steps = _confirmations(db, split)
        mine = [taken for owner, taken in steps if owner == study]
        granted = step in mine or len(mine) < limit
        if step not in mine:
            detail = {"study": study, "step": step, "split": split}
            audit.append(db, "confirmation.taken" if granted else "confirmation.refused", detail)
        if granted and step not in mine:
            db.execute("INSERT INTO confirmations VALUES (?, ?, ?, ?)", (split, study, step, now().isoformat()))
            steps, mine = [*steps, (study, step)], [*mine, step]
    if not granted:
        raise Refused(
            f"Study {study} has used its {limit} confirmations on this dev split. Its best candidate so far stands; a "
            "new study may confirm again, at a stricter level."
        )
    night = list(dict.fromkeys(owner for owner, _ in steps)).index(study) + 1
    return Confirmation(night, mine.index(step) + 1, spend_alpha(night, limit))


def _fold(db: sqlite3.Connection, folds: Sequence[str], study: str, looks: int) -> str | None:
    lookers = {fold: _lookers(db, fold) for fold in folds}
    mine = (fold for fold in folds if study in lookers[fold])
    fresh = (fold for fold in folds if len(lookers[fold]) < looks)
    return next(mine, next(fresh, None))


def _lookers(db: sqlite3.Connection, fold: str) -> list[str]:
    return [str(row["study"]) for row in db.execute("SELECT study FROM looks WHERE seal_digest = ?", (fold,))]


def _look(db: sqlite3.Connection, fold: str, study: str, now: Clock) -> bool:
    """Record the look; whether it is a new one."""
    values = (fold, study, now().isoformat())
    return db.execute("INSERT OR IGNORE INTO looks VALUES (?, ?, ?)", values).rowcount == 1


def _confirmations(db: sqlite3.Connection, split: str) -> list[tuple[str, str]]:
    rows = db.execute("SELECT study, step FROM confirmations WHERE split_digest = ? ORDER BY rowid", (split,))
    return [(str(row["study"]), str(row["step"])) for row in rows]
