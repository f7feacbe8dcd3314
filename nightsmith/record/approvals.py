"""Approvals: what a person allowed a study to do, until when. The newest approval of a study rules."""

import json
import sqlite3
from datetime import timedelta
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from nightsmith.record import audit
from nightsmith.record.budget import Budget
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.digest import Contract, sha256
from nightsmith.record.errors import NotApproved
from nightsmith.record.workspace import Workspace

How = Literal["flag", "console", "schedule"]


class Envelope(Contract):
    """What is approved: everything inside it runs without asking again."""

    study: str
    """Study id."""
    spec_digest: str
    """Digest of the GoalSpec."""
    plan_digest: str
    """Digest of the plan that was shown."""
    kinds: tuple[str, ...]
    """Kinds of job that may be started, e.g. `pretrain`, `evaluate`."""
    methods: tuple[str, ...] = ()
    """Training stages, in order."""
    max_trials: int | None = Field(default=None, ge=0)
    """Proposed trials; null: as many as the budget pays for."""
    budget: Budget = Budget()
    """What may be spent."""
    time_limit_s: float = Field(gt=0)
    """Longest time limit of a single job, in seconds."""
    data_digests: tuple[str, ...] = ()
    """Digests of the datasets, where they are known beforehand."""


class Approval(Contract):
    """An approved envelope."""

    envelope: Envelope
    """What was approved."""
    envelope_digest: str
    """Digest of the envelope."""
    by: str
    """OS user who approved it."""
    how: How
    """`--yes` flag, at the console, or beforehand by a schedule."""
    at: AwareDatetime
    """When, UTC."""
    expires_at: AwareDatetime
    """From then on it covers nothing, UTC."""


def approve(ws: Workspace, envelope: Envelope, *, how: How, valid_s: float = 86_400, now: Clock = utc_now) -> Approval:
    """Record that the user of this process approves the envelope for `valid_s` seconds."""
    at = now()
    approval = Approval(
        envelope=envelope,
        envelope_digest=envelope.digest(),
        by=audit.os_user(),
        how=how,
        at=at,
        expires_at=at + timedelta(seconds=valid_s),
    )
    text = approval.canonical()
    with ws.write() as db:
        detail = {
            "study": envelope.study,
            "hash": sha256(text),
            "how": how,
            "expires_at": approval.expires_at.isoformat(),
        }
        seq = audit.append(db, "approval.granted", detail, now=now)
        db.execute(
            "INSERT INTO approvals (study, approval, hash, audit_seq) VALUES (?, ?, ?, ?)",
            (envelope.study, text, sha256(text), seq),
        )
    return approval


_MEND = "Approve its plan at the console, or with --yes on the command line."


def require(
    db: sqlite3.Connection, study: str, *, kind: str, time_limit_s: float, mend: str = _MEND, now: Clock = utc_now
) -> Approval:
    """The approval that covers a job, inside the caller's transaction. `mend`: how to get one, for the message.

    Raises:
        NotApproved: there is none, it is not as it was approved, it expired, or the job is outside its envelope.
    """
    row = db.execute(
        "SELECT * FROM approvals WHERE study = ? AND revoked_at IS NULL ORDER BY id DESC LIMIT 1", (study,)
    ).fetchone()
    if row is None:
        raise NotApproved(f"Study {study!r} has no approval. {mend}")
    approval = _unchanged(db, row, mend)
    if reason := _outside(approval, kind, time_limit_s, mend, now):
        raise NotApproved(f"The approval of study {study!r} by {approval.by} {reason}")
    return approval


def excess(standing: Envelope, asked: Envelope) -> list[str]:
    """Where an envelope goes beyond one that was approved for every occurrence of a schedule; empty where it does not.

    Their plans may differ: each occurrence is planned with the time and the speeds of its own night.
    """
    found: list[str] = []
    if asked.spec_digest != standing.spec_digest:
        found.append(f"the goal is another one ({asked.spec_digest[:12]}, approved {standing.spec_digest[:12]})")
    for what, wanted, allowed in (
        ("kinds of job", asked.kinds, standing.kinds),
        ("methods", asked.methods, standing.methods),
    ):
        if more := [name for name in wanted if name not in allowed]:
            found.append(f"{what}: {', '.join(more)}, approved {', '.join(allowed) or 'none'}")
    limits = [("trials", asked.max_trials, standing.max_trials)]
    limits += [("seconds for one job", asked.time_limit_s, standing.time_limit_s)]
    found += [told for what, wanted, allowed in limits if (told := _more(what, wanted, allowed))]
    return found + _dearer(standing.budget, asked.budget)


def _dearer(standing: Budget, asked: Budget) -> list[str]:
    """The limits of a budget that another one goes beyond."""
    names = ("max_trials", "wall_clock_s", "per_trial_s", "gpu_hours", "tokens")
    found = [_more(name, getattr(asked, name), getattr(standing, name)) for name in names]
    if standing.cost is not None and (asked.cost is None or asked.cost.currency != standing.cost.currency):
        found.append(f"money: {asked.cost or 'no limit'}, approved {standing.cost}")
    elif standing.cost is not None and asked.cost is not None:
        found.append(_more(standing.cost.currency, asked.cost.amount, standing.cost.amount))
    if standing.deadline is not None and asked.deadline != standing.deadline:
        found.append("another deadline")
    return [told for told in found if told]


def _more(what: str, wanted: float | None, allowed: float | None) -> str:
    if allowed is None or (wanted is not None and wanted <= allowed):
        return ""
    return f"{what}: {'no limit' if wanted is None else f'{wanted:g}'}, approved {allowed:g}"


def revoke(ws: Workspace, study: str, *, now: Clock = utc_now) -> None:
    """Withdraw every approval of a study; running jobs go on, nothing new is started."""
    with ws.write() as db:
        db.execute(
            "UPDATE approvals SET revoked_at = ? WHERE study = ? AND revoked_at IS NULL", (now().isoformat(), study)
        )
        audit.append(db, "approval.revoked", {"study": study}, now=now)


def _unchanged(db: sqlite3.Connection, row: sqlite3.Row, mend: str) -> Approval:
    """The stored approval, if it hashes to what the audit says was approved."""
    line = db.execute("SELECT detail FROM audit WHERE seq = ?", (row["audit_seq"],)).fetchone()
    approved_hash = None if line is None else json.loads(line["detail"]).get("hash")
    changed = NotApproved(
        f"The approval of study {row['study']!r} was changed after it was given: its hash is not the one in the audit "
        f"(line {row['audit_seq']}). It covers nothing. {mend}"
    )
    if not sha256(row["approval"]) == row["hash"] == approved_hash:
        raise changed
    try:
        approval = Approval.model_validate_json(row["approval"])
    except ValidationError as error:
        raise changed from error
    if approval.envelope.study != row["study"] or approval.envelope.digest() != approval.envelope_digest:
        raise changed
    return approval


def _outside(approval: Approval, kind: str, time_limit_s: float, mend: str, now: Clock) -> str | None:
    """Why a job is not covered, and what mends it."""
    envelope = approval.envelope
    if now() >= approval.expires_at:
        return f"expired at {approval.expires_at:%Y-%m-%d %H:%M:%S %Z}. {mend}"
    if kind not in envelope.kinds:
        return (
            f"allows jobs of kind {', '.join(envelope.kinds)}, not {kind!r}. Start one of these, or approve a new plan."
        )
    if time_limit_s > envelope.time_limit_s:
        return (
            f"allows jobs of at most {envelope.time_limit_s:g} s, not {time_limit_s:g} s. "
            "Lower the job's time limit, or approve a new plan."
        )
    return None
