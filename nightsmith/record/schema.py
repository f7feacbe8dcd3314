"""Tables of `record.db` and their migrations, in order. A published migration is never edited: a new one is added."""

import sqlite3

from nightsmith.record.errors import NightsmithError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, study TEXT NOT NULL, kind TEXT NOT NULL,
        trial INTEGER, job TEXT, data TEXT NOT NULL);
    CREATE INDEX events_by_study ON events (study, seq);

    CREATE TABLE accounts (
        name TEXT PRIMARY KEY, budget TEXT NOT NULL, opened_at TEXT NOT NULL, deadline_at TEXT,
        active_s REAL NOT NULL DEFAULT 0);
    CREATE TABLE reservations (
        key TEXT PRIMARY KEY, account TEXT NOT NULL, reserved TEXT, spent TEXT NOT NULL);
    CREATE INDEX reservations_by_account ON reservations (account);

    CREATE TABLE leases (device TEXT PRIMARY KEY, key TEXT NOT NULL, at TEXT NOT NULL);
    CREATE INDEX leases_by_key ON leases (key);

    CREATE TABLE approvals (
        id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, approval TEXT NOT NULL, hash TEXT NOT NULL,
        audit_seq INTEGER NOT NULL, revoked_at TEXT);
    CREATE INDEX approvals_by_study ON approvals (study, id);

    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, detail TEXT NOT NULL,
        hash TEXT NOT NULL);
    CREATE TABLE audit_head (seq INTEGER NOT NULL, hash TEXT NOT NULL);
    INSERT INTO audit_head VALUES (0, '');

    CREATE TABLE jobs (
        key TEXT PRIMARY KEY, study, step, trial, role, spec, launch, attempt, state, created_at, started_at,
        finished_at, result);
    CREATE INDEX jobs_by_study ON jobs (study, created_at);

    CREATE TABLE studies (
        id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, goal TEXT NOT NULL, spec TEXT, state TEXT NOT NULL,
        detail TEXT, outcome TEXT, created_at TEXT NOT NULL, finished_at TEXT);
    CREATE TABLE trials (
        study TEXT NOT NULL, number INTEGER NOT NULL, plan TEXT NOT NULL, verdict TEXT, created_at TEXT NOT NULL,
        PRIMARY KEY (study, number));

    CREATE TABLE looks (
        seal_digest TEXT NOT NULL, study TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (seal_digest, study));
    CREATE TABLE confirmations (
        split_digest TEXT NOT NULL, study TEXT NOT NULL, step TEXT NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY (split_digest, study, step));
    """,
    """
    CREATE TABLE schedules (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, goal TEXT NOT NULL, spec TEXT NOT NULL,
        interpretation TEXT NOT NULL, folder TEXT NOT NULL, recurrence TEXT NOT NULL, budget TEXT NOT NULL,
        catch_up INTEGER NOT NULL, created_at TEXT NOT NULL, removed_at TEXT);
    CREATE UNIQUE INDEX schedules_by_name ON schedules (name) WHERE removed_at IS NULL;
    CREATE TABLE occurrences (
        id INTEGER PRIMARY KEY AUTOINCREMENT, schedule INTEGER NOT NULL, due_at TEXT NOT NULL, ends_at TEXT,
        started_at TEXT, ended_at TEXT, study TEXT, outcome TEXT, exit_status INTEGER, note TEXT NOT NULL,
        UNIQUE (schedule, due_at));
    """,
)


def version(db: sqlite3.Connection) -> int | None:
    """The schema version; None where the file has no record in it."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_version'").fetchone() is None:
        return None
    row = db.execute("SELECT version FROM schema_version").fetchone()
    return None if row is None else int(row[0])


def migrate(db: sqlite3.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring a record up to date, each migration in a transaction of its own; a newer record is refused untouched."""
    present = version(db)
    if present is None:
        db.executescript(
            "BEGIN IMMEDIATE; CREATE TABLE schema_version (version INTEGER NOT NULL);"
            "INSERT INTO schema_version VALUES (0); COMMIT;"
        )
        present = 0
    if present > len(migrations):
        raise NightsmithError(
            f"The workspace has schema version {present}; this Nightsmith knows versions up to {len(migrations)}. "
            "Update Nightsmith (pip install --upgrade nightsmith), or use another workspace with --workspace."
        )
    for number, statements in enumerate(migrations[present:], start=present + 1):
        db.executescript(f"BEGIN IMMEDIATE; {statements}; UPDATE schema_version SET version = {number}; COMMIT;")
