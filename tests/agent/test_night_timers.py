"""What `night install` puts into place, at the boundary: programs called systemctl and crontab on the PATH."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from simulated_nights import Nights
from study_factory import workspace_in_memory

from nightsmith.agent import night, night_install, night_timer
from nightsmith.agent.night_timer import Timers
from nightsmith.record.recurrence import DAYS
from nightsmith.record.workspace import open_workspace

NOON = datetime(2026, 3, 23, 12, 0, tzinfo=UTC)
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$CALLS"
[ "$2" != show-environment ] || exit "$SYSTEMD_STATUS"
"""
CRONTAB = """#!/bin/sh
if [ "$1" = -l ]; then
  [ -f "$TABLE" ] || { echo "no crontab for somebody" >&2; exit 1; }
  exec cat "$TABLE"
fi
exec cat > "$TABLE"
"""
OWN_LINES = "# mine\n0 5 * * * backup --all"
"""A crontab that a person keeps; it does not end in a line feed."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a systemctl that answers and a crontab, both in a folder whose name has spaces."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("crontab", CRONTAB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name, value in {
        "PATH": f"{programs}:/usr/bin:/bin", "CALLS": tmp_path / "calls", "TABLE": tmp_path / "table",
        "SYSTEMD_STATUS": "0", "XDG_CONFIG_HOME": tmp_path / "config",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    return tmp_path


@pytest.fixture
def nights() -> Iterator[Nights]:
    with workspace_in_memory() as ws:
        yield Nights(ws, NOON)


def units(machine: Path) -> list[str]:
    return sorted(path.name for path in (machine / "config/systemd/user").glob("*"))


def calls(machine: Path) -> list[str]:
    path = machine / "calls"
    return [line for line in path.read_text().splitlines() if "show-environment" not in line] if path.exists() else []


def test_a_timer_and_a_service_a_schedule_with_absolute_paths(nights: Nights, machine: Path) -> None:
    nights.schedule(days=DAYS[:5])
    assert night_install.install(nights.ws.root, kind=None, printed=False, now=nights.now) == 0
    service, timer = ((machine / "config/systemd/user" / name).read_text() for name in units(machine))
    assert "WorkingDirectory=/folder\n" in service
    assert f'"--workspace" "{nights.ws.root}"' in service
    assert re.search(r'ExecStart="/[^"]+" "-m" "nightsmith.agent.cli" "night" "run" "weeknights"', service)
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 22:00:00 Europe/Paris\n" in timer
    assert "Persistent=true\n" in timer
    name = units(machine)[1]
    assert calls(machine) == ["--user daemon-reload", f"--user enable {name}", f"--user restart {name}"]


def test_a_start_in_a_gap_has_a_calendar_event_of_its_own(nights: Nights) -> None:
    row = nights.schedule(at="02:30", until="07:00")
    timer = list(Timers(nights.ws).units([row], NOON).values())[1]
    assert "*-*-* 02:30:00 Europe/Paris" in timer
    assert "OnCalendar=Sun *-*-* 03:00:00 Europe/Paris" in timer


def test_installing_again_changes_nothing_and_a_removed_schedule_goes_with_its_units(nights, machine) -> None:
    nights.schedule("first")
    nights.schedule("second")
    for _ in range(2):
        night_install.install(nights.ws.root, kind=None, printed=False)
    assert len(units(machine)) == 4
    night.remove("first", nights.ws.root)
    assert [name.split("-")[-1] for name in units(machine)] == ["second.service", "second.timer"]
    assert any("disable --now" in call and "first.timer" in call for call in calls(machine))


def test_uninstalling_removes_exactly_the_workspaces_own(nights: Nights, machine: Path) -> None:
    folder = machine / "config/systemd/user"
    folder.mkdir(parents=True)
    for foreign in ("nightsmith-00000000-weeknights.timer", "backup.timer"):
        (folder / foreign).write_text("[Timer]\n")
    (machine / "table").write_text(OWN_LINES)
    nights.schedule()
    night_install.install(nights.ws.root, kind="systemd", printed=False)
    night_install.install(nights.ws.root, kind="cron", printed=False)
    assert len(units(machine)) == 4
    night_install.uninstall(nights.ws.root)
    assert units(machine) == ["backup.timer", "nightsmith-00000000-weeknights.timer"]
    assert (machine / "table").read_text() == f"{OWN_LINES}\n"
    before = calls(machine)
    night_install.uninstall(nights.ws.root)
    assert calls(machine) == before


def test_printing_changes_nothing(nights: Nights, machine: Path, capsys) -> None:
    nights.schedule()
    for kind in (None, "cron"):
        night_install.install(nights.ws.root, kind=kind, printed=True)
    assert units(machine) == []
    assert calls(machine) == []
    assert not (machine / "table").exists()
    shown = capsys.readouterr().out
    assert "OnCalendar=" in shown
    assert "@reboot" in shown


def test_without_systemd_a_marked_block_joins_the_crontab_once(nights, machine, monkeypatch) -> None:
    monkeypatch.setenv("SYSTEMD_STATUS", "1")
    (machine / "table").write_text(OWN_LINES)
    nights.schedule()
    for _ in range(2):
        night_install.install(nights.ws.root, kind=None, printed=False)
    lines = (machine / "table").read_text().splitlines()
    assert lines[:2] == OWN_LINES.splitlines()
    assert sum(line.startswith("# >>> nightsmith") for line in lines) == 1
    assert lines[-2].startswith("@reboot sleep 60 && ")
    assert units(machine) == []


def test_where_neither_works_it_is_said_what_does(nights: Nights, machine: Path, monkeypatch) -> None:
    nights.schedule()
    monkeypatch.setenv("PATH", str(machine))
    with pytest.raises(night_timer.NoTimer, match="nightsmith night run"):
        night_install.install(nights.ws.root, kind=None, printed=False)


@pytest.mark.usefixtures("machine")
def test_the_users_own_variables_are_said_to_be_missing_from_timers(nights, monkeypatch, capsys) -> None:
    monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", "http://127.0.0.1:1/v1")
    nights.schedule()
    night_install.install(nights.ws.root, kind="cron", printed=False)
    assert "NIGHTSMITH_PLANNER_URL" in capsys.readouterr().err


def test_crons_lines_are_of_the_machines_clock(nights: Nights) -> None:
    row = nights.schedule(days=DAYS[:5])
    here = Timers(nights.ws).block([row], NOON, ZoneInfo("Europe/Paris")).splitlines()
    assert [line.split(" mkdir")[0] for line in here[1:-2]] == ["0 22 * * 1,2,3,4,5"]
    away = Timers(nights.ws).block([row], NOON, ZoneInfo("Asia/Kolkata")).splitlines()
    assert [line.split(" mkdir")[0] for line in away[1:-2]] == ["30 1 * * 2,3,4,5,6", "30 2 * * 2,3,4,5,6"]


def test_cron_runs_the_command_that_was_meant_whatever_is_in_the_paths(tmp_path: Path) -> None:
    folder = tmp_path / "my 100% 'own' folder; echo $HOME"
    folder.mkdir()
    python = folder / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$@" > "${0}.called"\n')
    python.chmod(0o755)
    ws = open_workspace(folder / ".nightsmith")
    row = Nights(ws, NOON).schedule().model_copy(update={"folder": str(folder)})
    line = Timers(ws, python).block([row], NOON).splitlines()[1]
    command = re.sub(r"(?<!\\)%.*", "", " ".join(line.split(" ")[5:])).replace("\\%", "%")  # as cron reads it
    subprocess.run(["/bin/sh", "-c", command], check=True)
    cwd, *args = Path(f"{python}.called").read_text().splitlines()
    assert cwd == str(folder)
    assert args[-2:] == ["--workspace", str(ws.root)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze checks what systemd would read")
def test_systemd_reads_the_units_as_they_were_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'my 100% own $HOME "folder"'
    folder.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    nights = Nights(open_workspace(folder / ".nightsmith"), NOON)
    row = nights.schedule(at="02:30", until="07:00").model_copy(update={"folder": str(folder)})
    files = Timers(nights.ws).units([row], NOON)
    night_timer.unit_folder().mkdir(parents=True)
    for path, text in files.items():
        path.write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--user", *map(str, files)],
        text=True, capture_output=True, check=False, env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    ours = [line for line in told.stderr.splitlines() if "nightsmith-" in line]
    assert ours == [], told.stderr
    events = [line.partition("=")[2] for line in next(iter(list(files.values())[1:])).splitlines() if "OnCal" in line]
    assert len(events) == 2
    for event in events:
        shown = subprocess.run(["systemd-analyze", "calendar", event], text=True, capture_output=True, check=False)
        assert shown.returncode == 0, shown.stderr
        assert "Next elapse" in shown.stdout


def test_paths_that_no_timer_can_hold_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines"
    folder.mkdir()
    ws = open_workspace(folder / ".nightsmith")
    row = Nights(ws, NOON).schedule()
    with pytest.raises(night_timer.NoTimer, match="Rename it"):
        Timers(ws).units([row], NOON)
