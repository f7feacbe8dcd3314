import json
from datetime import UTC, datetime, timedelta

import pytest

from nightsmith.record import audit
from nightsmith.record.approvals import Approval, Envelope, approve, require, revoke
from nightsmith.record.budget import Budget
from nightsmith.record.digest import canonical_json, sha256
from nightsmith.record.errors import NotApproved
from nightsmith.record.workspace import Workspace

NIGHT = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)


def envelope(**changes: object) -> Envelope:
    fields = {"study": "s1", "spec_digest": "a" * 64, "plan_digest": "b" * 64, "kinds": ("pretrain", "evaluate")}
    return Envelope.model_validate({**fields, "time_limit_s": 300, "budget": Budget(max_trials=4), **changes})


def required(ws: Workspace, *, kind: str = "pretrain", time_limit_s: float = 300, at: datetime = NIGHT) -> Approval:
    with ws.write() as db:
        return require(db, "s1", kind=kind, time_limit_s=time_limit_s, now=lambda: at)


def test_an_approval_names_what_was_approved_by_whom_and_until_when(ws: Workspace) -> None:
    approval = approve(ws, envelope(), how="console", valid_s=3600, now=lambda: NIGHT)
    assert required(ws) == approval
    assert approval.envelope_digest == envelope().digest()
    assert approval.by == audit.os_user()
    assert approval.expires_at == NIGHT + timedelta(hours=1)
    assert [(line.action, line.detail["study"]) for line in audit.read(ws)] == [("approval.granted", "s1")]


def test_without_an_approval_the_message_says_how_to_give_one(ws: Workspace) -> None:
    with pytest.raises(NotApproved, match=r"has no approval.*--yes"):
        required(ws)


def test_an_approval_ends_at_its_expiry(ws: Workspace) -> None:
    approve(ws, envelope(), how="flag", valid_s=60, now=lambda: NIGHT)
    required(ws, at=NIGHT + timedelta(seconds=59))
    with pytest.raises(NotApproved, match="expired at 2026-11-23 22:01:00"):
        required(ws, at=NIGHT + timedelta(seconds=60))


def test_a_job_outside_the_envelope_is_refused_with_what_is_allowed(ws: Workspace) -> None:
    approve(ws, envelope(), how="flag", now=lambda: NIGHT)
    with pytest.raises(NotApproved, match="kind pretrain, evaluate, not 'grpo'"):
        required(ws, kind="grpo")
    with pytest.raises(NotApproved, match="at most 300 s, not 301 s"):
        required(ws, time_limit_s=301)


def test_an_approval_of_one_study_does_not_cover_another(ws: Workspace) -> None:
    approve(ws, envelope(study="s2"), how="flag", now=lambda: NIGHT)
    with pytest.raises(NotApproved):
        required(ws)


def test_the_newest_approval_rules_and_revoking_withdraws_all(ws: Workspace) -> None:
    approve(ws, envelope(), how="flag", now=lambda: NIGHT)
    approve(ws, envelope(kinds=("evaluate",)), how="flag", now=lambda: NIGHT)
    with pytest.raises(NotApproved):
        required(ws, kind="pretrain")
    revoke(ws, "s1")
    with pytest.raises(NotApproved, match="has no approval"):
        required(ws, kind="evaluate")
    assert audit.read(ws)[-1].action == "approval.revoked"


def forge(ws: Workspace, path: list[str], value: object) -> str:
    """Change one field of the stored approval as somebody with a SQLite shell would; returns the new text."""
    with ws.write() as db:
        stored = json.loads(db.execute("SELECT approval FROM approvals").fetchone()[0])
        part = stored
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        text = canonical_json(stored)
        db.execute("UPDATE approvals SET approval = ?", (text,))
    return text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["envelope", "time_limit_s"], 86_400.0),
        (["envelope", "budget", "max_trials"], 400),
        (["expires_at"], "2036-01-01T00:00:00Z"),
        (["by"], "somebody"),
        (["envelope"], "nothing"),
    ],
)
def test_an_approval_changed_by_hand_covers_nothing(ws: Workspace, path: list[str], value: object) -> None:
    approve(ws, envelope(), how="flag", now=lambda: NIGHT)
    text = forge(ws, path, value)
    with pytest.raises(NotApproved, match="changed after it was given"):
        required(ws)
    with ws.write() as db:
        db.execute("UPDATE approvals SET hash = ?", (sha256(text),))
    with pytest.raises(NotApproved, match="changed after it was given"):
        required(ws)


def test_an_approval_moved_to_another_study_or_without_its_audit_line_covers_nothing(ws: Workspace) -> None:
    approve(ws, envelope(study="s2"), how="flag", now=lambda: NIGHT)
    with ws.write() as db:
        db.execute("UPDATE approvals SET study = 's1'")
    with pytest.raises(NotApproved, match="changed"):
        required(ws)
    with ws.write() as db:
        db.execute("UPDATE approvals SET study = 's2'")
        db.execute("DELETE FROM audit")
        with pytest.raises(NotApproved, match="changed"):
            require(db, "s2", kind="pretrain", time_limit_s=1, now=lambda: NIGHT)
