"""`night install` and `night uninstall`: puts what calls `night run` into place, shows it, takes it out again."""

import os
import sys
from pathlib import Path

from nightsmith.agent import night_timer
from nightsmith.agent.night_timer import Timers
from nightsmith.agent.opening import existing, opened
from nightsmith.record import schedules
from nightsmith.record.clock import Clock, utc_now
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace


def install(path: Path | None, *, kind: str | None, printed: bool, now: Clock = utc_now) -> int:
    """Install the timers of every schedule (`printed`: show them only). Again: brings them up to date."""
    ws = existing(path)
    rows, timers = schedules.all(ws), Timers(ws)
    if printed:
        print(_shown(timers, kind or _likely(), now), end="")
        return 0
    if not rows and not timers.installed_units() and not timers.has_block():
        raise NightsmithError("There is no schedule to install. Add one first: nightsmith night add …")
    kind = kind or night_timer.choose()
    if kind == "cron":
        timers.install_block(rows, now())
        print(f"The crontab calls {_told(len(rows))} of {ws.root}. Output: {ws.root / 'nights'}")
    else:
        for unit in timers.install_units(rows, now()):
            print(unit)
        print(f"systemd calls {_told(len(rows))} of {ws.root}. Output: journalctl --user -u '{timers.prefix}*'")
        _warn_of_logout()
    _warn_of_environment()
    return 0


def uninstall(path: Path | None) -> int:
    """Take out exactly what `install` put into place; schedules stay."""
    taken = Timers(opened(path)).uninstall()
    print("\n".join(f"Removed {one}" for one in taken) or "Nothing was installed for this workspace.")
    return 0


def follow(ws: Workspace, now: Clock = utc_now) -> None:
    """Bring what is installed, if anything is, up to date with the schedules that there are."""
    rows, timers = schedules.all(ws), Timers(ws)
    if timers.installed_units():
        timers.install_units(rows, now())
    if timers.has_block():
        timers.install_block(rows, now())


def _likely() -> str:
    """What would be installed here; what systemd takes where nothing can be."""
    try:
        return night_timer.choose()
    except night_timer.NoTimer:
        return "systemd"


def _shown(timers: Timers, kind: str, now: Clock) -> str:
    rows = schedules.all(timers.ws)
    if kind == "cron":
        return timers.block(rows, now()) or "# No schedule is there.\n"
    files = timers.units(rows, now())
    return "\n".join(f"# {path}\n{text}" for path, text in files.items()) or "# No schedule is there.\n"


def _told(number: int) -> str:
    return f"{number} schedule{'' if number == 1 else 's'}"


def _warn_of_logout() -> None:
    if night_timer.lingers() is False:
        print(
            "nightsmith: your timers stop when you log out. To keep them running: loginctl enable-linger",
            file=sys.stderr,
        )


def _warn_of_environment() -> None:
    named = sorted(name for name in os.environ if name.startswith("NIGHTSMITH_") and name != "NIGHTSMITH_WORKSPACE")
    if named:
        print(
            f"nightsmith: timers do not see your shell's {', '.join(named)}. Put settings into nightsmith.toml, and "
            "secrets into the environment of the timers (systemctl --user edit, or the head of the crontab).",
            file=sys.stderr,
        )
