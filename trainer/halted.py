"""What a monitor leaves behind: evidence, and weights that are marked so that nothing promotes them. Torch-free."""

import json
from pathlib import Path

from nightsmith.record.errors import NightsmithError

EVIDENCE, HALTED, MARK = "evidence", "halted", "not_promotable.json"
"""Folders of a run folder with the evidence and with the weights as they were; the file in the latter that says why."""


class NotPromotable(NightsmithError):
    """Weights that a monitor stopped the training of were to be used."""


def mark(folder: Path, monitor: str, reason: str) -> None:
    """Say in a folder of weights that they must not be promoted."""
    (folder / MARK).write_text(json.dumps({"monitor": monitor, "reason": reason}))


def require_promotable(folder: Path) -> None:
    """Refuse marked weights. Raises NotPromotable."""
    try:
        why = json.loads((folder / MARK).read_text())
    except FileNotFoundError:
        return
    raise NotPromotable(
        f"{folder} holds weights whose training the monitor {why['monitor']} stopped: {why['reason']} They are kept to "
        "be looked at. Use the checkpoint before it, or train again."
    )
