"""The report in a real browser: as wide as the window on a telephone and on a desk, in daylight and at night."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import laid_out
from study_factory import Idea, StudyFactory, workspace_in_memory

from nightsmith.agent import report
from nightsmith.evals.types import Decision
from nightsmith.record.workspace import Workspace

pytestmark = pytest.mark.browser

UNBROKEN = "an_unbroken_word_that_is_longer_than_any_screen_of_a_telephone_is_wide_" * 5


@pytest.fixture(scope="module")
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


@pytest.fixture(scope="module")
def pages(ws: Workspace) -> dict[str, Path]:
    """Reports of a usual, a long, a strange and an empty study."""
    factory = StudyFactory(ws)
    long = factory.planned(max_trials=40)
    factory.baseline(long)
    for number in range(1, 41):
        factory.trial(long, number, Idea({"learning_rate": 0.001}, "Another rate.", 0.01 * number, Decision.REJECTED))
    strange = factory.planned(UNBROKEN)
    factory.baseline(strange)
    factory.trial(strange, 1, Idea({UNBROKEN: UNBROKEN}, UNBROKEN, 900.0, Decision.REJECTED))
    factory.refused(strange, UNBROKEN)
    studies = {"usual": factory.proven(), "long": long, "strange": strange, "empty": factory.created()}
    return {name: report.write(ws, study) for name, study in studies.items()}


@pytest.mark.parametrize("name", ["usual", "long", "strange", "empty"])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(pages: dict[str, Path], name: str, width: int, tmp_path: Path):
    seen = laid_out(pages[name], width, tmp_path)
    assert seen["wide"] == []
    assert seen["scrollWidth"] <= seen["width"] <= width
    assert seen["hidden"] == 0
    assert seen["height"] > 300


def test_it_is_dark_where_the_reader_likes_it_dark(pages: dict[str, Path], tmp_path: Path):
    light, dark = (laid_out(pages["usual"], 400, tmp_path, scheme)["background"] for scheme in ("light", "dark"))
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 28)")


def test_the_measure_sees_what_is_too_wide(tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><body><p style="width: 500px">wide</p></body>')
    seen = laid_out(page, 400, tmp_path)
    assert seen["scrollWidth"] > seen["width"]
    assert len(seen["wide"]) == 1
