"""Rewards: what they are, and what they pay."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from nightsmith.evals.rewards import ExactMatchReward, FormatReward, ReasoningGymReward, Reward
from nightsmith.evals.scoring import Sample, Score, scorer
from nightsmith.record.errors import NightsmithError

ADAPTER: TypeAdapter[Reward] = TypeAdapter(Reward)


def sample(completion: str, reference: str = "17", question: str = "?", source: str = "made:0") -> Sample:
    return Sample("r", source, ({"role": "user", "content": question},), reference, completion)


def test_every_reward_survives_its_own_json() -> None:
    for reward in (
        ExactMatchReward(weight=0.5),
        FormatReward(tags=("a", "b")),
        ReasoningGymReward(task="lcm", seed=1, num_generated=3, parameters=(("min_numbers", 2),)),
    ):
        assert ADAPTER.validate_json(reward.model_dump_json()) == reward


def scores(reward: Reward, *samples: Sample) -> list[Score]:
    with scorer(reward) as score:
        return score(samples)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "either a pattern or tags"),
        ({"pattern": "a", "tags": ["b"]}, "either a pattern or tags"),
        ({"pattern": "("}, "no regular expression"),
        ({"tags": ["<b>"]}, "is no tag"),
    ],
)
def test_a_format_that_says_nothing_clear_is_refused(fields, said) -> None:
    with pytest.raises(ValidationError, match=said):
        FormatReward.model_validate(fields)


@pytest.mark.parametrize(
    ("text", "paid"),
    [
        ("<think>a\nb</think>\n<answer>3</answer>", 1.0),
        ("<think></think><answer></answer> ", 1.0),
        ("<answer>3</answer><think>a</think>", 0.0),
        ("<think>a</think><answer>3", 0.0),
        ("<think>a<answer></think><answer>3</answer>", 1.0),
        ("<think>a</think></think><answer>3</answer>", 0.0),
        ("so: <think>a</think><answer>3</answer>", 0.0),
    ],
)
def test_tags_are_one_element_each_in_order_and_nothing_else(text: str, paid: float) -> None:
    assert scores(FormatReward(tags=("think", "answer")), sample(text)) == [paid]


def test_a_pattern_that_takes_for_ever_is_a_failed_scoring() -> None:
    reward = FormatReward(pattern="(a+)+b|(a|aa)+$x")
    assert scores(reward, sample("a" * 60 + "c"), sample("aab")) == [None, 1.0]


def test_exact_match_pays_for_the_reference_but_for_white_space() -> None:
    assert scores(ExactMatchReward(), sample(" 17\n"), sample("170"), sample("")) == [1.0, 0.0, 0.0]


def test_reasoning_gym_pays_what_its_own_generator_says_of_the_row() -> None:
    from reasoning_gym import create_dataset

    dataset = create_dataset("chain_sum", seed=3, size=5, min_digits=1, max_digits=1)
    reward = ReasoningGymReward(
        task="chain_sum", seed=3, num_generated=5, parameters=(("min_digits", 1), ("max_digits", 1))
    )
    rows = [(f"reasoning-gym:chain_sum?max_digits=1:{i}", dataset[i]) for i in range(5)]
    right = [sample(row["answer"], question=row["question"], source=source) for source, row in rows]
    wrong = [sample("none", question=row["question"], source=source) for source, row in rows]
    assert scores(reward, *right) == [1.0] * 5
    assert scores(reward, *wrong) == [0.0] * 5
    with pytest.raises(NightsmithError, match="is not what reasoning-gym generates"):
        scores(reward, sample("3", question="another question", source=rows[0][0]))
    with pytest.raises(NightsmithError, match="is not what reasoning-gym generates"):
        scores(reward, sample("3", question="?", source="my.csv:77"))


def test_a_reward_of_unknown_kind_names_the_kinds_there_are() -> None:
    with pytest.raises(ValidationError, match="exact_match"):
        ADAPTER.validate_json(json.dumps({"kind": "vibes"}))
