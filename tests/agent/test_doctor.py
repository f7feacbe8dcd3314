"""`nightsmith doctor` says what works here and how to get the rest, also where nothing can be written."""

import json
from pathlib import Path

import pytest
from openai_server import completion, serving

from nightsmith.agent import doctor, probes
from nightsmith.agent.probes import State

GOOD = completion('{"status": "ready"}')


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of one's own, without settings, cache or workspace."""
    monkeypatch.chdir(tmp_path)
    for name in ("NIGHTSMITH_WORKSPACE", "NIGHTSMITH_PLANNER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHTSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def examined(
    capsys: pytest.CaptureFixture[str], workspace: Path | None = None
) -> tuple[int, dict[str, dict[str, str]]]:
    code = doctor.examine(workspace, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (code == 0)
    return code, {check["name"]: check for check in told["checks"]}


def test_all_is_well_with_a_planner_by_url_and_nothing_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with serving(GOOD) as fake:
        monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", fake.url)
        code, checks = examined(capsys)
    assert code == 0
    assert "a short decision in" in checks["planner"]["detail"]
    assert "CPU threads" in checks["torch"]["detail"]
    assert "will be made" in checks["workspace"]["detail"]
    assert list(home.iterdir()) == []
    assert fake.requests[-1]["body"]["response_format"]["json_schema"]["schema"] == doctor.ANSWER


def test_what_is_needed_and_missing_is_said_with_its_mend(home: Path, capsys: pytest.CaptureFixture[str]):
    (home / "cache").mkdir()
    code, checks = examined(capsys)
    assert code == 5
    weights = checks["planner's weights"]
    assert (weights["state"], weights["needed"]) == ("missing", True)
    assert "nightsmith model pull planner" in weights["mend"]
    assert list((home / "cache").iterdir()) == []


def test_places_that_cannot_be_written_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (home / "file").touch()
    monkeypatch.setenv("NIGHTSMITH_CACHE", "/proc/nowhere")
    code, checks = examined(capsys, home / "file" / ".nightsmith")
    assert code == 5
    assert "NIGHTSMITH_CACHE" in checks["cache"]["mend"]
    assert "--workspace" in checks["workspace"]["mend"]
    assert checks["planner's weights"]["state"] == "missing"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("answer", [completion("ready"), completion('{"status": "blocked"}'), (500, "out of memory")])
def test_a_planner_that_does_not_keep_to_the_schema_is_missing(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str]
):
    with serving(answer) as fake:
        monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", fake.url)
        (check,) = list(doctor.planner())
    assert (check.name, check.state, check.needed) == ("planner", State.MISSING, True)


def test_settings_that_cannot_be_read_are_said_not_raised(home: Path):
    (home / "nightsmith.toml").write_text("[planner\n")
    (check,) = list(doctor.planner())
    assert "not valid TOML" in check.detail


@pytest.mark.usefixtures("home")
def test_text_is_a_line_each_within_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "80")
    assert doctor.examine(None, as_json=False) == 5
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("found    Python: 3.")
    assert any(line.startswith("MISSING  planner's weights") for line in lines)
    assert lines[-1] == "Needed and missing: planner's weights."


def test_each_sandbox_is_told_with_its_self_test_or_its_mend_and_one_is_chosen():
    checks = {check.name: check for check in probes.sandboxes()}
    assert list(checks) == ["bubblewrap", "landlock", "sandbox"]
    for name in ("bubblewrap", "landlock"):
        if checks[name].state is State.FOUND:
            assert "could neither read, write, connect" in checks[name].detail
        else:
            assert checks[name].mend
    assert checks["sandbox"].state is State.MISSING or checks["sandbox"].detail.split()[-1] in checks


def test_without_bubblewrap_the_doctor_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    check = next(iter(probes.sandboxes()))
    assert (check.name, check.state) == ("bubblewrap", State.MISSING)
    assert "apt install bubblewrap" in check.mend


def test_slurm_is_needed_where_jobs_are_sent_there_and_not_asked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(probes.cluster()) == []
    monkeypatch.setenv("NIGHTSMITH_LAUNCHER", "slurm")
    (check,) = probes.cluster()
    assert (check.state, check.needed) == (State.MISSING, True)
    assert "slurm-client" in check.mend
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\necho 'gpu up infinite 0/4/0/4 node[1-4]'\n")
    sinfo.chmod(0o755)
    (check,) = probes.cluster()
    assert (check.state, check.detail) == (State.FOUND, "gpu up infinite 0/4/0/4 node[1-4]")
