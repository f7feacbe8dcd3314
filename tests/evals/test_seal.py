"""Looks and alpha are counted in the record, shared by all studies, and cost nothing twice."""

import multiprocessing
import os
import signal

import pytest

from nightsmith.evals.seal import looks_left, take_confirmation, take_look
from nightsmith.evals.stats import spend_alpha
from nightsmith.record import audit
from nightsmith.record.errors import Refused
from nightsmith.record.workspace import open_workspace

SPLIT = "d" * 64


@pytest.fixture
def ws(tmp_path):
    return open_workspace(tmp_path / ".nightsmith")


def actions(ws) -> list[str]:
    return [line.action for line in audit.read(ws)]


def test_a_sealed_fold_is_looked_at_by_one_study_and_by_no_other(ws):
    assert take_look(ws, ["fold0"], "s1") == "fold0"
    with pytest.raises(Refused, match="more sealed folds"):
        take_look(ws, ["fold0"], "s2")
    assert actions(ws) == ["look.taken", "look.refused"]


def test_a_single_digest_is_not_taken_for_a_list_of_letters(ws):
    with pytest.raises(TypeError, match="sequence"):
        take_look(ws, "fold0", "s1")
    assert actions(ws) == []


def test_asking_again_for_a_look_costs_nothing(ws):
    assert [take_look(ws, ["fold0", "fold1"], "s1") for _ in range(3)] == ["fold0"] * 3
    assert looks_left(ws, ["fold0", "fold1"]) == 1
    assert actions(ws) == ["look.taken"]


def test_further_folds_are_for_further_studies_in_order(ws):
    folds = ["fold0", "fold1", "fold2"]
    assert [take_look(ws, folds, study) for study in ("s1", "s2", "s1", "s3")] == ["fold0", "fold1", "fold0", "fold2"]
    assert looks_left(ws, folds) == 0
    with pytest.raises(Refused, match="3 fold"):
        take_look(ws, folds, "s4")


def test_a_larger_look_budget_lets_more_studies_look(ws):
    assert {take_look(ws, ["fold0"], study, looks=2) for study in ("s1", "s2")} == {"fold0"}
    with pytest.raises(Refused, match="2 look"):
        take_look(ws, ["fold0"], "s3", looks=2)


def test_confirmations_spend_less_alpha_with_every_study_on_the_same_split(ws):
    nights = [take_confirmation(ws, SPLIT, f"s{k}", "confirm1") for k in (1, 2, 3)]
    assert [each.night for each in nights] == [1, 2, 3]
    assert [each.alpha for each in nights] == [spend_alpha(k, 3) for k in (1, 2, 3)]
    assert take_confirmation(ws, "e" * 64, "s3", "confirm1").night == 1


def test_a_study_confirms_three_times_at_one_level_and_then_no_more(ws):
    taken = [take_confirmation(ws, SPLIT, "s1", f"confirm{i}") for i in range(3)]
    assert [each.number for each in taken] == [1, 2, 3]
    assert len({each.alpha for each in taken}) == 1
    with pytest.raises(Refused, match="3 confirmations"):
        take_confirmation(ws, SPLIT, "s1", "confirm3")
    assert actions(ws)[-1] == "confirmation.refused"


def test_the_same_confirmation_asked_again_keeps_its_night_and_number(ws):
    first = take_confirmation(ws, SPLIT, "s1", "confirm1")
    take_confirmation(ws, SPLIT, "s2", "confirm1")
    assert take_confirmation(ws, SPLIT, "s1", "confirm1") == first
    assert len(actions(ws)) == 2


def look_and_die(root, study: str) -> None:
    take_look(open_workspace(root), ["fold0"], study)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_study_killed_after_its_look_still_has_it_and_keeps_others_out(ws):
    process = multiprocessing.get_context("spawn").Process(target=look_and_die, args=(ws.root, "s1"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert take_look(ws, ["fold0"], "s1") == "fold0"
    with pytest.raises(Refused):
        take_look(ws, ["fold0"], "s2")


def look_once(root, study: str, results) -> None:
    try:
        results.put((study, take_look(open_workspace(root), ["fold0"], study)))
    except Refused:
        results.put((study, None))


def test_of_studies_that_look_at_the_same_moment_only_one_gets_the_fold(ws):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=look_once, args=(ws.root, f"s{i}", results)) for i in range(4)]
    for process in processes:
        process.start()
    got = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(fold is not None for _, fold in got) == 1
