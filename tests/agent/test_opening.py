"""Commands that only read make no workspace: a wrong folder is said, and stays as it was."""

from pathlib import Path

import pytest

from nightsmith.agent import display, night, night_install, night_session, session
from nightsmith.record.errors import NightsmithError

NOWHERE = [
    lambda path: display.show("s1", path, as_json=False),
    lambda path: display.report("s1", path),
    lambda path: session.resume("s1", path, answers=[], yes=False, as_json=False),
    lambda path: session.stop("s1", path),
    lambda path: night.show("weeknights", path, as_json=False),
    lambda path: night.remove("weeknights", path),
    lambda path: night_session.run(None, path, forced=False, as_json=False),
    lambda path: night_install.install(path, kind=None, printed=True),
]


@pytest.mark.parametrize("command", NOWHERE)
def test_what_needs_a_workspace_says_that_there_is_none_and_makes_none(command, tmp_path: Path):
    with pytest.raises(NightsmithError, match=r"no workspace at .*Change into the folder .*--workspace"):
        command(tmp_path / ".nightsmith")
    assert list(tmp_path.iterdir()) == []


def test_lists_are_empty_where_there_is_no_workspace_and_make_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for as_json, told in ((True, "[]\n[]\n"), (False, "No studies yet")):
        assert display.studies_table(tmp_path / ".nightsmith", as_json=as_json) == 0
        assert night.listing(tmp_path / ".nightsmith", as_json=as_json) == 0
        assert capsys.readouterr().out.startswith(told)
    assert list(tmp_path.iterdir()) == []
