"""What a job reserves before its start, and what an attempt really spent. Torch-free."""

from datetime import datetime
from pathlib import Path

from nightsmith.record.budget import Amount
from nightsmith.trainer.jobrows import JobRow, Role
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import PostTraining, PretrainSpec, RunSpec


def reservation(spec: RunSpec, role: Role, *, time_limit_s: float, num_devices: int, device_kind: str) -> Amount:
    """The most that a job can spend: its devices for its whole time limit, and all of its training tokens."""
    tokens = 0.0
    if isinstance(spec, PretrainSpec):
        tokens = float(spec.num_steps * spec.architecture.batch_size * spec.architecture.seq_len)
    elif isinstance(spec, PostTraining):
        tokens = float(spec.num_steps * spec.batch_size * spec.max_len * spec.sequences_per_row)
    return _amount(time_limit_s, num_devices, device_kind, tokens, trials=int(role == "trial"))


def spent(row: JobRow) -> Amount:
    """What the newest attempt of a job used: from its intent to the last line of its journal, whoever ended it.

    On a cluster from the first line: it held nothing while it was in a queue.
    """
    journal = Path(row.launch.workdir) / JOURNAL
    lines = [line for line in read_journal(journal) if line.get("attempt") == row.attempt]
    at = [datetime.fromisoformat(line["at"]) for line in lines]
    queued = row.launch.site.kind != "local"
    wall_s = (at[-1] - (at[0] if queued else row.started_at)).total_seconds() if at else 0.0
    tokens = max((float(line["attempt_tokens"]) for line in lines if "attempt_tokens" in line), default=0.0)
    devices = row.launch.devices
    kind = devices[0].partition(":")[0] if devices else "cpu"
    return _amount(max(0.0, wall_s), len(devices), kind, tokens, trials=int(row.role == "trial"))


def _amount(wall_s: float, num_devices: int, device_kind: str, tokens: float, trials: int) -> Amount:
    device_s = wall_s * num_devices
    return Amount(
        wall_s=wall_s,
        cpu_s=device_s if device_kind == "cpu" else 0.0,
        gpu_hours=device_s / 3600 if device_kind == "cuda" else 0.0,
        tokens=tokens,
        trials=trials,
    )
