"""The picture: inside its frame, whatever the figures are."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.agent.curve import Curve, Point, best_so_far, interval

FIGURE = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])
POINTS = st.lists(
    st.builds(Point, trial=st.integers(0, 500), value=FIGURE, low=FIGURE | st.none(), high=FIGURE | st.none()),
    max_size=8,
)


def numbers(svg: str) -> list[tuple[str, float]]:
    """Every coordinate of the picture, with the axis it is on."""
    root = ElementTree.fromstring(svg)
    found: list[tuple[str, float]] = []
    for element in root.iter():
        for name, value in element.attrib.items():
            if re.fullmatch(r"c?[xy][12]?", name):
                found.append((name.strip("c12"), float(value)))
        for command, digits in re.findall(r"([HV])(-?[\d.]+)", element.attrib.get("d", "")):
            found.append(("x" if command == "H" else "y", float(digits)))
    return found


@given(
    POINTS,
    st.lists(st.tuples(st.integers(0, 500), FIGURE), max_size=5),
    st.lists(FIGURE, max_size=4),
    FIGURE | st.none(),
    st.sampled_from([(760, 340), (360, 270)]),
)
def test_everything_lies_inside_the_frame_and_is_finite(points, best, baseline, target, size):
    curve = Curve("bits_per_byte", points, sorted(best, key=lambda step: step[0]), baseline, target)
    svg = best_so_far(curve, width=size[0], height=size[1], label="best")
    assert "nan" not in svg
    assert "inf" not in svg
    for axis, position in numbers(svg):
        assert -1 <= position <= (size[0] if axis == "x" else size[1]) + 1


@given(FIGURE | st.none(), FIGURE | st.none(), FIGURE | st.none(), FIGURE, FIGURE | st.none())
def test_an_interval_lies_inside_its_row(low, estimate, high, reach, target):
    svg = interval(low, estimate, high, reach, target)
    assert "nan" not in svg
    assert all(0 <= position <= 120 for axis, position in numbers(svg) if axis == "x")


def test_shares_are_drawn_in_per_cent():
    svg = best_so_far(Curve("exact_match", [Point(1, 0.2)], [(0, 0.0), (1, 0.2)], [0.0], 0.6), label="best")
    assert {"0 %", "20 %", "60 %"} <= {text.text for text in ElementTree.fromstring(svg).iter("text")}


def test_a_lower_value_is_drawn_lower():
    svg = best_so_far(Curve("loss", [Point(1, 2.0), Point(2, 1.0)], [(1, 2.0), (2, 1.0)]), label="best")
    heights = [float(circle.attrib["cy"]) for circle in ElementTree.fromstring(svg).iter("circle")]
    assert heights[0] < heights[1]


def test_one_diverged_trial_does_not_squash_the_others():
    points = [Point(1, 2.9), Point(2, 2.7), Point(3, 4000.0)]
    svg = best_so_far(Curve("loss", points, [(0, 3.0), (1, 2.9), (2, 2.7)], [3.0], 2.8), label="best")
    heights = [float(c.attrib["cy"]) for c in ElementTree.fromstring(svg).iter("circle") if "dot" in c.attrib["class"]]
    assert len(heights) == 2
    assert heights[1] - heights[0] > 50
    assert "4,000" in svg


def test_a_picture_without_figures_says_so():
    assert "No trial has been evaluated yet" in best_so_far(Curve("loss"), label="best")


@pytest.mark.parametrize("text", ['"><script>', "a & b", "<b>"])
def test_labels_are_escaped(text: str):
    svg = best_so_far(Curve("loss", [Point(1, 2.0, decision=text)], target=1.0, target_label=text), label=text)
    assert "<script>" not in svg
    assert ElementTree.fromstring(svg).attrib["aria-label"] == text


def test_thousands_of_trials_stay_a_small_picture_without_whiskers():
    svg = best_so_far(Curve("loss", [Point(n, 2.0 + n % 7, 1.0, 9.0) for n in range(2000)]), label="best")
    assert "whisker" not in svg
    assert len(svg) < 400_000
