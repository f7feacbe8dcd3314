"""A study's own papers: how its goal was understood and how it will be pursued, as files in its folder."""

import json
import os
from pathlib import Path
from typing import Any

from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import StudyPlan
from nightsmith.record.clock import utc_now
from nightsmith.record.workspace import Workspace


def save(ws: Workspace, study: str, name: str, content: Any) -> Path:
    """Write one paper as JSON, atomically: a crash leaves the old one or the new one."""
    path = ws.study_dir(study) / f"{name}.json"
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    draft.replace(path)
    return path


def load(ws: Workspace, study: str, name: str) -> Any:
    """One paper as plain JSON data, or None where it was not written yet."""
    path = ws.study_dir(study) / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


STOPPED = "Stopped on request."
"""Why a study ended that somebody asked to stop."""


def request_stop(ws: Workspace, study: str) -> None:
    """Ask a study to end: whoever drives it stops its jobs, judges what there is and reports."""
    (ws.study_dir(study) / "stop").touch()


def stop_requested(ws: Workspace, study: str) -> bool:
    """Whether somebody asked the study to end."""
    return (ws.study_dir(study) / "stop").exists()


def goal_spec(ws: Workspace, study: str) -> GoalSpec:
    """The frozen goal of an interpreted study."""
    return GoalSpec.model_validate(load(ws, study, "interpretation")["spec"])


def study_plan(ws: Workspace, study: str) -> StudyPlan:
    """The plan of a study that passed preflight."""
    return StudyPlan.model_validate(load(ws, study, "plan"))


def add_transcript(ws: Workspace, study: str, decision: str, transcript: dict[str, Any]) -> None:
    """Append what the planner was asked and what it said, so that every decision can be replayed.

    Its schemas are kept once each, in files named by their digests.
    """
    for digest, schema in transcript.get("schemas", {}).items():
        if not _schema_path(ws, study, digest).is_file():
            _schema_path(ws, study, digest).parent.mkdir(exist_ok=True)
            save(ws, study, f"schemas/{digest}", schema)
    kept = {key: value for key, value in transcript.items() if key != "schemas"}
    line = {"decision": decision, "at": utc_now().isoformat(timespec="seconds"), **kept}
    with (ws.study_dir(study) / "transcripts.jsonl").open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def schema(ws: Workspace, study: str, digest: str) -> dict[str, Any] | None:
    """A schema that an answer was held to, its keys in the order in which the server saw them; None: not kept."""
    path = _schema_path(ws, study, digest)
    return json.loads(path.read_text()) if path.is_file() else None


def _schema_path(ws: Workspace, study: str, digest: str) -> Path:
    return ws.study_dir(study) / "schemas" / f"{digest}.json"


def transcripts(ws: Workspace, study: str) -> list[dict[str, Any]]:
    """What was appended so far, in order. A line that a crash cut off is left out."""
    path = ws.study_dir(study) / "transcripts.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
