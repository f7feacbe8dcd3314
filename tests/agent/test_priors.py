"""Where a study begins: settings that are far from what is known to be sound are mended with the first move."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsmith.agent import priors
from nightsmith.agent.planning_pretrain import SPACE
from nightsmith.agent.proposals import ProposeRequest, SettingState
from nightsmith.model.presets import PRESETS
from nightsmith.tools.training import Pretrain, recipe


def nano(**settings):
    return recipe(Pretrain(num_steps=400)) | settings


def off(**settings):
    batch = settings.get("batch_size", 8)
    return priors.mended(nano(num_steps=3200 // batch, **settings), SPACE, ())


@pytest.mark.parametrize(
    ("width", "published"), [(768, 6e-4), (1024, 3e-4), (2048, 2e-4), (4096, 1.2e-4), (12288, 0.6e-4)]
)
def test_the_rate_follows_the_table_that_it_comes_from(width, published):
    assert priors.sound(nano(hidden_size=width, batch_size=7))["learning_rate"].value == pytest.approx(
        published, rel=0.7
    )


@given(st.sampled_from(sorted(PRESETS)), st.integers(50, 10**6))
def test_where_to_begin_is_itself_sound(preset, num_steps):
    shape = PRESETS[preset]
    known = priors.sound(nano(hidden_size=shape.hidden_size, seq_len=shape.seq_len, batch_size=1, num_steps=num_steps))
    assert all(each.holds(each.value) for each in known.values())


def test_a_recipe_that_is_sound_is_left_as_it_is():
    assert off(learning_rate=4e-3, batch_size=4) == {}


def test_every_setting_that_is_off_is_mended_at_once():
    assert off(learning_rate=3e-2, batch_size=32, warmup_share=0.3, schedule="constant", weight_decay=0.3) == {
        "learning_rate": 3.5e-3, "batch_size": 4, "warmup_share": 0.05, "schedule": "wsd", "weight_decay": 0.1,
    }  # fmt: skip


def test_only_what_trials_may_change_is_mended_and_within_their_range():
    rate, batch = (each for each in SPACE if each.name in ("learning_rate", "batch_size"))
    low = rate.model_copy(update={"high": 2e-3})
    many = batch.model_copy(update={"choices": (16, 32)})
    bad = nano(learning_rate=1e-4, batch_size=32, num_steps=100, schedule="constant")
    assert priors.mended(bad, [low, many], ()) == {"learning_rate": 2e-3, "batch_size": 16}


def test_what_two_trials_had_in_vain_is_not_mended_again():
    bad = nano(learning_rate=1e-4, batch_size=4)
    better = {**bad, "learning_rate": priors.sound(bad)["learning_rate"].value}
    assert priors.mended(bad, SPACE, [better])
    assert priors.mended(bad, SPACE, [better, {**better, "schedule": "wsd"}]) == {}


def test_ways_that_lead_away_from_sound_values_are_known():
    ways = set(priors.unsound_ways(nano(learning_rate=3e-2, batch_size=4, warmup_share=0.05, weight_decay=0.05)))
    assert ("learning_rate", "raise") in ways
    assert ("learning_rate", "lower") not in ways
    assert not {name for name, _ in ways} & {"warmup_share", "weight_decay", "schedule"}


def asked(*names, barred=()):
    states = tuple(SettingState(name=name, value=nano()[name]) for name in names)
    return ProposeRequest(objective="loss min", settings=states, trials_left=3, barred=barred)


def test_what_matters_most_is_offered_first_and_the_rest_once_that_was_tried_in_vain():
    names = ("warmup_share", "learning_rate", "schedule")
    assert {name for name, _ in priors.offered(asked(*names), nano()).open_changes()} == {"learning_rate"}
    tried = asked(*names, barred=(("learning_rate", "raise"), ("learning_rate", "lower"), ("learning_rate", "tune")))
    assert {name for name, _ in priors.offered(tried, nano()).open_changes()} == {"warmup_share", "schedule"}


def test_nothing_is_said_of_other_methods_nor_of_another_optimizer():
    assert priors.sound({"learning_rate": 1e-4, "adaptation": "lora", "batch_size": 8, "num_steps": 100}) == {}
    assert priors.sound(nano(optimizer="muon")) == {}
