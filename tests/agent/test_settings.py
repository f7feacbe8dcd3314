import pytest

from nightsmith.agent.settings import load_settings
from nightsmith.record.errors import NightsmithError
from nightsmith.record.settings_file import FILE


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("PLANNER_URL", "PLANNER_MODEL", "PLANNER_TOKEN_ENV", "ALLOW_REMOTE_PLANNER"):
        monkeypatch.delenv(f"NIGHTSMITH_{name}", raising=False)


def test_without_a_file_the_planner_is_the_embedded_one(tmp_path):
    settings = load_settings(tmp_path)
    assert settings.backend().url is None
    assert settings.budget is None


def test_the_file_is_found_upwards_and_the_environment_wins(tmp_path, monkeypatch):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / FILE).write_text('[planner]\nurl = "http://127.0.0.1:1/v1"\nmodel = "m"\n[budget]\nwall_clock_s = 60\n')
    settings = load_settings(below)
    assert (settings.planner.url, settings.planner.model) == ("http://127.0.0.1:1/v1", "m")
    assert settings.budget is not None
    assert settings.budget.wall_clock_s == 60

    monkeypatch.setenv("NIGHTSMITH_PLANNER_URL", "http://localhost:2/v1")
    settings = load_settings(below)
    assert (settings.planner.url, settings.planner.model) == ("http://localhost:2/v1", "m")


def test_the_file_says_what_fine_tunes_in_studies(tmp_path):
    (tmp_path / FILE).write_text('[sft]\nbackend = "fused"\nlead_tokens = 4\n')
    assert load_settings(tmp_path).sft.asked == {"backend": "fused", "lead_tokens": 4}


def test_the_token_comes_from_the_variable_that_the_file_names(tmp_path, monkeypatch):
    (tmp_path / FILE).write_text('[planner]\nurl = "http://127.0.0.1:1/v1"\ntoken_env = "MY_TOKEN"\n')
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    settings = load_settings(tmp_path)
    assert settings.backend().token == "s3cret"
    assert "s3cret" not in settings.canonical()


def test_goals_leave_the_machine_only_where_that_is_allowed(tmp_path, monkeypatch):
    (tmp_path / FILE).write_text('[planner]\nurl = "https://planner.example.com/v1"\n')
    with pytest.raises(NightsmithError, match="allow_remote_planner = true"):
        load_settings(tmp_path).backend()
    monkeypatch.setenv("NIGHTSMITH_ALLOW_REMOTE_PLANNER", "true")
    assert load_settings(tmp_path).backend().url == "https://planner.example.com/v1"


@pytest.mark.parametrize(("text", "words"), [("[planer]\n", "planer.*Allowed.*planner"), ("url = ", "not valid TOML")])
def test_a_wrong_file_is_refused_with_what_is_allowed(tmp_path, text, words):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(NightsmithError, match=words):
        load_settings(tmp_path)
