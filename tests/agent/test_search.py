from hypothesis import given, settings
from hypothesis import strategies as st

from nightsmith.agent.plan import Tunable
from nightsmith.agent.priors import Sound
from nightsmith.agent.search import Tried, choose_value

RATE = Tunable(name="learning_rate", kind="float", low=1e-4, high=3e-2, log=True)
BATCH = Tunable(name="batch_size", kind="choice", choices=(4, 8, 16, 32))
SCHEDULE = Tunable(name="schedule", kind="choice", choices=("constant", "cosine", "wsd"))


def choose(tunable, direction, current, tried=(), seed=0, taken=(), sound=None):
    how = {"lower_is_better": True, "seed": seed, "taken": taken, "sound": sound}
    return choose_value(tunable, direction, current, tried, **how)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**31))
def test_raising_gives_a_larger_and_lowering_a_smaller_value_inside_the_range(seed):
    assert 1e-3 < choose(RATE, "raise", 1e-3, seed=seed) <= 1e-2
    assert 1e-4 <= choose(RATE, "lower", 1e-3, seed=seed) < 1e-3


def test_the_same_study_and_trial_give_the_same_value():
    tried = [Tried({"learning_rate": 2e-3}, 3.1), Tried({"learning_rate": 8e-3}, 3.6)]
    assert choose(RATE, "tune", 1e-3, tried, seed=7) == choose(RATE, "tune", 1e-3, tried, seed=7)


def test_a_choice_moves_to_the_nearest_untried_one_in_that_direction():
    assert choose(BATCH, "raise", 8) == 16
    assert choose(BATCH, "raise", 8, taken=(16,)) == 32
    assert choose(BATCH, "lower", 8) == 4
    assert choose(BATCH, "lower", 4) is None


def test_words_have_no_direction():
    assert choose(SCHEDULE, "raise", "cosine") in ("constant", "wsd")
    assert choose(SCHEDULE, "raise", "cosine", taken=("constant", "wsd")) is None


def test_nothing_is_left_above_the_top_of_the_range():
    assert choose(RATE, "raise", 3e-2) is None


def test_values_have_two_digits_that_a_person_can_repeat():
    assert choose(RATE, "raise", 1e-3) == float(f"{choose(RATE, 'raise', 1e-3):.2g}")


def test_the_first_step_is_half_a_decade_and_the_next_one_half_way_to_what_was_tried():
    assert choose(RATE, "raise", 1e-3) == 3.2e-3
    assert choose(RATE, "raise", 3.2e-3, taken=(1e-2, 1e-3)) == 5.7e-3
    assert choose(RATE, "lower", 3.2e-3, taken=(1e-2, 1e-3)) == 1.8e-3


def test_a_step_that_would_hardly_change_anything_is_none():
    assert choose(RATE, "raise", 1e-3, taken=(1.2e-3,)) is None


def test_of_many_choices_ahead_the_middle_one_is_tried_first():
    assert choose(BATCH, "lower", 32) == 8
    assert choose(BATCH, "lower", 32, taken=(8,)) == 16


def test_a_value_that_was_tried_never_comes_again_and_the_search_closes_in():
    taken, tried = [1e-3], []
    while (value := choose(RATE, "tune", 1e-3, tried, seed=len(tried), taken=taken)) is not None:
        assert value not in taken
        taken.append(value)
        tried.append(Tried({"learning_rate": value}, 3.0 + len(tried)))
    assert 2 <= len(tried) < 12


def test_from_outside_the_sound_values_the_first_one_is_where_they_begin_and_from_inside_their_edge():
    sound = Sound(4e-3, 2e-3, 8e-3)
    assert choose(RATE, "raise", 3e-4, sound=sound) == 4e-3
    assert choose(RATE, "tune", 3e-2, sound=sound) == 4e-3
    assert choose(RATE, "lower", 3e-4, sound=sound) < 3e-4
    assert choose(RATE, "raise", 4e-3, sound=sound) == 8e-3


def test_of_words_the_sound_ones_come_first():
    sound = Sound("wsd", words=("cosine", "wsd"))
    assert choose(SCHEDULE, "tune", "cosine", sound=sound) == "wsd"
    assert choose(SCHEDULE, "tune", "constant", sound=sound) == "wsd"
