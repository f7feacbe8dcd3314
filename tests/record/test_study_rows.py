import pytest

from nightsmith.record import studies
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace


def test_a_study_goes_from_created_to_its_outcome(ws: Workspace) -> None:
    study = studies.create(ws, "Lower the loss of «größer»")
    assert studies.get(ws, study).state == "created"
    studies.set_spec(ws, study, {"schema": 1, "targets": []})
    studies.set_state(ws, study, "waiting", {"job": "k"})
    row = studies.get(ws, study)
    assert (row.goal, row.spec, row.state) == ("Lower the loss of «größer»", {"schema": 1, "targets": []}, "waiting")
    assert (row.detail, row.outcome) == ({"job": "k"}, None)
    studies.finish(ws, study, "NOT_MET", "budget spent")
    row = studies.get(ws, study)
    assert (row.state, row.outcome, row.detail) == ("finished", "NOT_MET", "budget spent")
    assert row.finished_at is not None


def test_a_finished_study_that_is_resumed_is_open_again(ws: Workspace) -> None:
    study = studies.create(ws, "goal")
    studies.finish(ws, study, "STOPPED")
    studies.set_state(ws, study, "running")
    row = studies.get(ws, study)
    assert (row.outcome, row.finished_at) == (None, None)


def test_studies_are_numbered_and_a_number_with_a_folder_is_not_used_again(ws: Workspace) -> None:
    assert [studies.create(ws, "goal") for _ in range(2)] == ["s1", "s2"]
    ws.study_dir("s11")
    assert studies.create(ws, "goal") == "s12"
    assert [row.id for row in studies.all(ws)] == ["s1", "s2", "s12"]


def test_a_finished_study_leaves_a_good_copy_of_the_record(ws: Workspace) -> None:
    good = ws.root / "record.db.good"
    good.unlink()
    studies.finish(ws, studies.create(ws, "goal"), "MET")
    assert good.exists()


def test_the_first_plan_of_a_trial_stands_and_the_last_verdict(ws: Workspace) -> None:
    study = studies.create(ws, "goal")
    first = studies.add_trial(ws, study, 1, {"move": "scale"})
    assert studies.add_trial(ws, study, 1, {"move": "seed"}) == first
    studies.add_trial(ws, study, 0, {"move": "baseline"})
    studies.set_verdict(ws, study, 1, {"status": "INCONCLUSIVE"})
    studies.set_verdict(ws, study, 1, {"status": "PROMOTED"})
    baseline, trial = studies.trials(ws, study)
    assert (baseline.number, baseline.verdict) == (0, None)
    assert (trial.plan, trial.verdict) == ({"move": "scale"}, {"status": "PROMOTED"})


def test_what_does_not_exist_is_said_with_what_does(ws: Workspace) -> None:
    with pytest.raises(NightsmithError, match="none yet"):
        studies.get(ws, "s1")
    study = studies.create(ws, "goal")
    for call in (studies.get, studies.trials):
        with pytest.raises(NightsmithError, match=r"no study 's9'. Studies: s1"):
            call(ws, "s9")
    with pytest.raises(NightsmithError, match="no study 's9'"):
        studies.set_state(ws, "s9", "running")
    with pytest.raises(NightsmithError, match="no study 's9'"):
        studies.add_trial(ws, "s9", 0, {})
    with pytest.raises(NightsmithError, match="no trial 3"):
        studies.set_verdict(ws, study, 3, {})
