"""What the planner itself takes, in the account of the study that it decides for.

Its GPUs are those that `reserved_devices` keeps from jobs; a study is charged for the time in which it waited for them.
"""

from typing import Any

from nightsmith.agent import dossier
from nightsmith.agent.backends import is_loopback
from nightsmith.agent.settings import load_settings
from nightsmith.record import budget, leases
from nightsmith.record.budget import Amount
from nightsmith.record.workspace import Workspace

TAKEN = "gpu_s"
"""Field of a transcript: seconds of the planner's GPUs, times their number."""


def keep_transcript(ws: Workspace, study: str, decision: str, transcript: dict[str, Any]) -> None:
    """Keep what the planner was asked and said, and charge what that took."""
    gpu_s = float(transcript.get("wall_s", 0.0)) * _num_gpus()
    dossier.add_transcript(ws, study, decision, {**transcript, TAKEN: gpu_s})
    charge(ws, study)


def charge(ws: Workspace, study: str) -> None:
    """Bring the account up to what the transcripts say, also of decisions from before it was opened."""
    gpu_s = sum(float(line.get(TAKEN, 0.0)) for line in dossier.transcripts(ws, study))
    if gpu_s and budget.is_open(ws, study):
        budget.set_spent(ws, study, f"{study}-planner", Amount(gpu_hours=gpu_s / 3600))


def _num_gpus() -> int:
    """GPUs of this machine that the planner's server runs on."""
    url = load_settings().planner.url
    here = url is not None and is_loopback(url)
    return sum(device.startswith("cuda:") for device in leases.reserved()) if here else 0
