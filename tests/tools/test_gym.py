"""Generated sources with parameters: found by reference and by words, checked by name and value."""

from itertools import islice
from pathlib import Path

import pytest

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.readers import records
from nightsmith.tools.data.resolve import resolve
from nightsmith.tools.data.sources import Source


def found(ref: str) -> Source:
    return resolve(ref, cwd=Path("/"))


def questions(source: Source, count: int = 40) -> list[str]:
    return [row["question"] for _, _, row in islice(records(source, num_generated=count, seed=1), count)]


def test_parameters_make_another_source_whatever_their_order():
    easy = found("reasoning-gym:chain_sum?max_terms=2&max_digits=1")
    assert easy.id == easy.label == "reasoning-gym:chain_sum?max_digits=1&max_terms=2"
    assert easy.id == found("Reasoning_Gym:chain-sum?max_digits=1&max_terms=2").id
    assert all(len([each for each in text.split() if each.isdecimal()]) == 2 for text in questions(easy))
    assert questions(easy) != questions(found("reasoning-gym:chain_sum"))


@pytest.mark.parametrize(
    "phrase",
    [
        "reasoning-gym:chain_sum",
        "reasoning-gym chain_sum",
        "the chain_sum task of reasoning-gym",
        "chain_sum from reasoning-gym",
        "arithmetic pairs from the chain_sum generator of reasoning-gym",
    ],
)
def test_goals_name_a_task_in_many_ways(phrase: str):
    assert found(phrase).id == "reasoning-gym:chain_sum"


def test_values_take_the_type_of_their_parameter():
    assert found("reasoning-gym:chain_sum?allow_negation=true").id.endswith("?allow_negation=true")
    listed = found("reasoning-gym:calendar_arithmetic?tasks=[weekday_offset]")
    assert all("day" in text for text in questions(listed, 5))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("max_term=2", "no parameter 'max_term'. Did you mean 'max_terms'"),
        ("zzz=2", "Parameters: min_terms, max_terms, min_digits, max_digits, allow_negation."),
        ("max_terms=two", "'max_terms' is 'two', which is no int"),
        ("max_terms=1", "max_terms must be >= min_terms. Parameters: min_terms (2), max_terms (6)"),
        ("size=5", "'size' is set by the build. Leave it out, set 'num_generated' there"),
        ("max_terms", "'max_terms' is no parameter. Write them as"),
        ("max_terms=2&max_terms=3", "gives 'max_terms' twice"),
        ("max_terms=", "is no parameter"),
        ("allow_negation=maybe", "'allow_negation' is 'maybe'"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_with_a_remedy(query: str, said: str):
    with pytest.raises(ToolError) as caught:
        found(f"reasoning-gym:chain_sum?{query}")
    assert said in str(caught.value)


def test_a_file_of_that_name_still_wins(tmp_path: Path):
    (tmp_path / "reasoning-gym:chain_sum").write_text("mine")
    assert resolve("reasoning-gym:chain_sum", cwd=tmp_path).kind == "text"
