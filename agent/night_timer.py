"""The timers that call `night run`: systemd user units, one pair a schedule, or a marked block in the crontab.

Every path in them is absolute. Calling too often does no harm, since only what is due runs: a timer therefore also
fires after a start of the machine, and at every time of day that the clock shows at some start within two years.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

from nightsmith.record import recurrence
from nightsmith.record.digest import sha256
from nightsmith.record.errors import NightsmithError
from nightsmith.record.recurrence import DAYS, Day
from nightsmith.record.schedules import ScheduleRow
from nightsmith.record.workspace import Workspace

AFTER_START_S = 60
"""Wait after a start of the machine, for disks and network."""
LEAVE_S = 120
"""How long systemd waits for a run that it stops: its jobs save a checkpoint first."""


class NoTimer(NightsmithError):
    """Neither systemd nor cron can be used here."""


@dataclass(frozen=True)
class Timers:
    """The timers of one workspace."""

    ws: Workspace
    python: Path = Path(sys.executable)

    @property
    def prefix(self) -> str:
        """Beginning of the names of this workspace's units."""
        return f"nightsmith-{sha256(str(self.ws.root))[:8]}-"

    def units(self, schedules: Sequence[ScheduleRow], now: datetime) -> dict[Path, str]:
        """The unit files and their text."""
        files: dict[Path, str] = {}
        for schedule in schedules:
            stem = unit_folder() / f"{self.prefix}{schedule.name}"
            files[stem.with_name(f"{stem.name}.service")] = self._service(schedule)
            files[stem.with_name(f"{stem.name}.timer")] = _timer(schedule, now)
        return files

    def block(self, schedules: Sequence[ScheduleRow], now: datetime, zone: tzinfo | None = None) -> str:
        """The crontab's block; `zone`: that of cron, by default the machine's. Empty without schedules."""
        lines = [line for schedule in schedules for line in self._cron_lines(schedule, now, zone)]
        return "\n".join([self._marker(">>>"), *lines, self._marker("<<<"), ""]) if lines else ""

    def install_units(self, schedules: Sequence[ScheduleRow], now: datetime) -> list[Path]:
        """Write and start the units; those of schedules that are gone are taken out. Returns what is installed."""
        files = self.units(schedules, now)
        self._drop_units([path for path in self.installed_units() if path not in files])
        unit_folder().mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text)
        _systemctl("daemon-reload")
        timers = [path.name for path in files if path.suffix == ".timer"]
        if timers:
            _systemctl("enable", *timers)
            _systemctl("restart", *timers)  # a timer that is changed takes its new times only so
        return sorted(files)

    def install_block(self, schedules: Sequence[ScheduleRow], now: datetime) -> str:
        """Put the block into the crontab, in the place of an older one. Returns it."""
        block = self.block(schedules, now)
        before = crontab()
        after = self._without_block(before) + block
        if after != before:
            _set_crontab(after)
        return block

    def uninstall(self) -> list[str]:
        """Take out exactly what was installed for this workspace. Returns what it was."""
        units = self.installed_units()
        self._drop_units(units)
        taken = [str(path) for path in units]
        if units and has_systemd():
            _systemctl("daemon-reload")
        if self.has_block():
            _set_crontab(self._without_block(crontab()))
            taken.append("the crontab's block")
        return taken

    def installed_units(self) -> list[Path]:
        """Unit files of this workspace."""
        return sorted(
            path for suffix in ("service", "timer") for path in unit_folder().glob(f"{self.prefix}*.{suffix}")
        )

    def has_block(self) -> bool:
        """Whether the crontab has a block of this workspace."""
        return shutil.which("crontab") is not None and self._marker(">>>") in crontab().splitlines()

    def _drop_units(self, paths: Sequence[Path]) -> None:
        timers = [path.name for path in paths if path.suffix == ".timer"]
        if timers and has_systemd():
            _systemctl("disable", "--now", *timers)
        for path in paths:
            path.unlink(missing_ok=True)

    def _command(self, schedule: ScheduleRow) -> tuple[str, ...]:
        paths = (str(self.python), str(self.ws.root), schedule.folder)
        if any(not path.isprintable() for path in paths):
            raise NoTimer(f"A path has a character that no timer can hold: {', '.join(map(repr, paths))}. Rename it.")
        call = (str(self.python), "-m", "nightsmith.agent.cli", "night", "run", schedule.name)
        return (*call, "--workspace", str(self.ws.root))

    def _service(self, schedule: ScheduleRow) -> str:
        command = " ".join(map(_systemd_quoted, self._command(schedule)))
        return (
            f"[Unit]\nDescription=Nightsmith schedule {schedule.name}\n\n"
            f"[Service]\nType=oneshot\nWorkingDirectory={_systemd_path(schedule.folder)}\nExecStart={command}\n"
            # 3: ended in order, without what the goal asks for. 5 and 6 need a person and show as failed.
            f"SuccessExitStatus=3\nKillMode=mixed\nTimeoutStopSec={LEAVE_S}\n"
        )

    def _cron_lines(self, schedule: ScheduleRow, now: datetime, zone: tzinfo | None) -> list[str]:
        log = self.ws.root / "nights" / f"{schedule.name}.log"
        command = " ".join(map(shlex.quote, self._command(schedule)))
        told = (
            f"mkdir -p {shlex.quote(str(log.parent))} && cd {shlex.quote(schedule.folder)} && {command} "
            f">> {shlex.quote(str(log))} 2>&1"
        ).replace("%", "\\%")  # cron reads a bare % as the end of the command
        times = recurrence.starts_by_clock(schedule.recurrence, now, zone)
        lines = [f"{int(clock[3:])} {int(clock[:2])} * * {_cron_days(days)} {told}" for clock, days in times.items()]
        return [*lines, f"@reboot sleep {AFTER_START_S} && {told}"]

    def _marker(self, arrows: str) -> str:
        return f"# {arrows} nightsmith nights of {self.ws.root} {arrows}"

    def _without_block(self, text: str) -> str:
        kept: list[str] = []
        inside = False
        for line in text.splitlines(keepends=True):
            inside = inside or line.rstrip("\n") == self._marker(">>>")
            if not inside:
                kept.append(line if line.endswith("\n") else f"{line}\n")
            inside = inside and line.rstrip("\n") != self._marker("<<<")
        return "".join(kept)


def unit_folder() -> Path:
    """Where systemd looks for a user's own units."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configured) if configured else Path.home() / ".config") / "systemd" / "user"


def has_systemd() -> bool:
    """Whether this user's systemd manager answers."""
    return shutil.which("systemctl") is not None and _tried(["systemctl", "--user", "show-environment"]).returncode == 0


def lingers() -> bool | None:
    """Whether the user's timers run while they are logged out; None where that cannot be told."""
    if shutil.which("loginctl") is None:
        return None
    told = _tried(["loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value"])
    return told.stdout.strip() == "yes" if told.returncode == 0 else None


def choose() -> str:
    """`systemd` where the user's manager answers, else `cron`. Raises NoTimer where neither can be used."""
    if has_systemd():
        return "systemd"
    if shutil.which("crontab"):
        return "cron"
    raise NoTimer(
        "Neither `systemctl --user` nor `crontab` works here. Let whatever starts programs on this machine call "
        "`nightsmith night run` (--print shows the full command); calling it too often does no harm."
    )


def crontab() -> str:
    """The user's crontab; empty where there is none."""
    told = _tried(["crontab", "-l"])
    if told.returncode != 0 and "no crontab" not in told.stderr:
        raise NoTimer(f"The crontab cannot be read: {told.stderr.strip() or f'exit status {told.returncode}'}.")
    return told.stdout if told.returncode == 0 else ""


def _set_crontab(text: str) -> None:
    told = _tried(["crontab", "-"], given=text)
    if told.returncode != 0:
        raise NoTimer(f"The crontab cannot be changed: {told.stderr.strip() or f'exit status {told.returncode}'}.")


def _systemctl(*args: str) -> None:
    told = _tried(["systemctl", "--user", *args])
    if told.returncode != 0:
        raise NoTimer(f"systemctl --user {' '.join(args)} failed: {told.stderr.strip() or told.stdout.strip()}.")


def _tried(command: Sequence[str], given: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, input=given, text=True, capture_output=True, check=False, timeout=60)


def _timer(schedule: ScheduleRow, now: datetime) -> str:
    recurring = schedule.recurrence
    times: Mapping[str, tuple[Day, ...]] = {
        **recurrence.starts_by_clock(recurring, now, recurring.zone),  # systemd leaves out a time that a gap swallows
        recurring.at: recurring.days,
    }
    calendar = "".join(f"OnCalendar={calendar_event(clock, times[clock], recurring.timezone)}\n" for clock in times)
    return (
        f"[Unit]\nDescription=Nightsmith schedule {schedule.name}\n\n"
        f"[Timer]\n{calendar}Persistent=true\nOnStartupSec={AFTER_START_S}\nAccuracySec=1s\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def calendar_event(clock: str, days: Sequence[Day], timezone: str) -> str:
    """A calendar event as systemd.time(7) has it."""
    return f"{','.join(day.capitalize() for day in days)} *-*-* {clock}:00 {timezone}"


def _cron_days(days: Sequence[Day]) -> str:
    """Days of the week by crontab(5): Sunday is 0."""
    return "*" if len(days) == len(DAYS) else ",".join(str((DAYS.index(day) + 1) % 7) for day in days)


def _systemd_quoted(word: str) -> str:
    """One word of ExecStart by systemd.service(5): quoted, no specifier and no variable in it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.replace("%", "%%").replace("$", "$$")


def _systemd_path(path: str) -> str:
    """A path that is a whole value; quotes would be taken for a part of it."""
    return path.replace("%", "%%")
