"""`nightsmith gc`: which checkpoints go, which stay, and what a crash in between leaves."""

import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_at import count_lines, killed_at
from study_factory import IDEAS, StudyFactory, workspace_in_memory

from nightsmith.agent import removing
from nightsmith.agent.retention import remove, retention
from nightsmith.record import audit
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows, jobs
from nightsmith.trainer.post_training import ModelRef, SftSpec
from nightsmith.trainer.spec import RunStatus

SIZE = 1000


@pytest.fixture
def factory() -> Iterator[StudyFactory]:
    with workspace_in_memory() as ws:
        yield StudyFactory(ws)


def with_weights(ws: Workspace, *names: str) -> None:
    """Weights in every run folder that has none: the final checkpoint, and those of the given names."""
    for row in jobs.rows(ws):
        if row.role != "sealed":
            for name in ("checkpoint-00000064", *names):
                folder = ws.run_dir(row.key) / name
                folder.mkdir(exist_ok=True)
                (folder / "model.safetensors").write_bytes(bytes(SIZE))
            as_final(ws, row.key, ws.run_dir(row.key) / "checkpoint-00000064")


def as_final(ws: Workspace, key: str, folder: Path) -> None:
    """The record says that the job's final checkpoint is this one."""
    result = jobrows.get(ws, key).result
    if result is not None:
        final = result.model_copy(update={"checkpoint": str(folder)}).model_dump_json()
        with ws.write() as db:
            db.execute("UPDATE jobs SET result = ? WHERE key = ?", (final, key))


def become(ws: Workspace, key: str, **columns: str) -> None:
    with ws.write() as db:
        for name, value in columns.items():
            db.execute(f"UPDATE jobs SET {name} = ? WHERE key = ?", (value, key))


def left(ws: Workspace) -> set[str]:
    """Jobs that have weights."""
    return {path.parent.name for path in ws.runs.glob("*/checkpoint-*")}


def not_met(factory: StudyFactory) -> tuple[str, dict[str, str]]:
    """An ended study in which nothing was promoted: baseline 0, trials 1 to 4. Returns the keys by step."""
    study = factory.planned()
    factory.baseline(study)
    for number, idea in enumerate(IDEAS, start=1):
        factory.trial(study, number, idea)
    factory.ended(study, "NOT_MET")
    return study, {row.step: row.key for row in jobs.rows(factory.ws, study)}


def test_of_a_study_without_a_winner_the_best_and_the_last_stay(factory) -> None:
    _, keys = not_met(factory)
    with_weights(factory.ws)
    assert remove(factory.ws, retention(factory.ws)).num_bytes == 7 * SIZE
    assert left(factory.ws) == {keys["trial-4"]}


def test_more_of_the_best_stay_where_that_is_asked(factory) -> None:
    _, keys = not_met(factory)
    with_weights(factory.ws)
    remove(factory.ws, retention(factory.ws, best=2), best=2)
    assert left(factory.ws) == {keys["trial-4"], keys["trial-1"]}


def test_what_a_promotion_and_a_claim_rest_on_stays(factory) -> None:
    study = factory.proven()
    with_weights(factory.ws)
    kept = {each.job: each.reason for each in retention(factory.ws).kept}
    rows = jobs.rows(factory.ws, study)
    resting = {row.key for row in rows if row.trial in (0, 4)}
    assert kept.keys() == resting
    assert kept[factory.key(study, "baseline-0")] == "a claim rests on it"
    assert sorted({each.trial for each in retention(factory.ws).removals}) == [1, 2, 3]


def test_a_study_that_goes_on_loses_nothing(factory) -> None:
    study = factory.planned()
    factory.baseline(study)
    with_weights(factory.ws)
    assert retention(factory.ws).removals == ()


def test_a_running_job_of_an_ended_study_and_what_it_reads_stay(factory) -> None:
    ended, keys = not_met(factory)
    factory.job(ended, "late", 2, "confirmation", 1.0, seed=9, ended=False)
    late = factory.key(ended, "late")
    model = ModelRef(path=str(factory.ws.run_dir(keys["trial-2"]) / "checkpoint-00000064"), weights_digest="0")
    spec = SftSpec(model=model, data="/d", data_digest="0", num_steps=1)
    become(factory.ws, late, spec=spec.model_dump_json())
    with_weights(factory.ws)
    kept = {each.job: each.reason for each in retention(factory.ws).kept}
    assert kept[late] == "it runs"
    assert kept[keys["trial-2"]] == f"job {late} was made of it"


def test_the_ancestors_of_what_stays_stay(factory) -> None:
    _, keys = not_met(factory)
    chain = [keys["trial-1"], keys["trial-2"], keys["trial-4"]]
    for parent, child in itertools.pairwise(chain):
        model = ModelRef(path=str(factory.ws.run_dir(parent) / "checkpoint-00000064"), weights_digest="0")
        spec = SftSpec(model=model, data="/d", data_digest="0", num_steps=1)
        become(factory.ws, child, spec=spec.model_dump_json())
    with_weights(factory.ws)
    remove(factory.ws, retention(factory.ws))
    assert left(factory.ws) == set(chain)


def test_jobs_started_by_hand_and_registered_models_stay(factory) -> None:
    _, keys = not_met(factory)
    become(factory.ws, keys["trial-1"], study="manual")
    with_weights(factory.ws)
    with sqlite3.connect(factory.ws.root / "mlflow.db") as db:
        db.execute("CREATE TABLE model_versions (name TEXT, source TEXT)")
        place = factory.ws.run_dir(keys["trial-3"]) / "checkpoint-00000064"
        db.execute("INSERT INTO model_versions VALUES ('mine', ?)", (place.as_uri(),))
    remove(factory.ws, retention(factory.ws))
    assert left(factory.ws) == {keys[step] for step in ("trial-1", "trial-3", "trial-4")}


def test_a_finished_job_keeps_only_its_final_checkpoint_and_others_keep_what_they_would_resume_from(factory) -> None:
    _, keys = not_met(factory)
    with_weights(factory.ws, "checkpoint-00000032", "trainer")
    (row,) = [row for row in jobs.rows(factory.ws) if row.step == "trial-2"]
    stopped = row.result.model_copy(update={"status": RunStatus.STOPPED})
    become(factory.ws, row.key, study="manual", state="STOPPED", result=stopped.model_dump_json())
    remove(factory.ws, retention(factory.ws))
    names = {key: sorted(p.name for p in factory.ws.run_dir(key).iterdir() if p.is_dir()) for key in left(factory.ws)}
    assert names == {
        keys["trial-4"]: ["checkpoint-00000064"],
        keys["trial-2"]: ["checkpoint-00000032", "checkpoint-00000064", "trainer"],
    }


def test_results_events_and_specs_stay_and_the_audit_says_what_went(factory) -> None:
    not_met(factory)
    with_weights(factory.ws)
    before = {path for path in factory.ws.runs.glob("*/*") if path.is_file()}
    removed = remove(factory.ws, retention(factory.ws))
    assert {path for path in factory.ws.runs.glob("*/*") if path.is_file()} == before
    line = audit.read(factory.ws)[-1]
    assert line.action == "checkpoints.removed"
    assert line.detail["num_bytes"] == removed.num_bytes
    assert set(line.detail["jobs"]) == {each.job for each in removed.removals}
    assert audit.verify(factory.ws) is None
    assert remove(factory.ws, retention(factory.ws)).removals == ()
    assert audit.read(factory.ws)[-1] == line


def test_what_somebody_began_to_need_after_it_was_shown_stays(factory) -> None:
    _, keys = not_met(factory)
    with_weights(factory.ws)
    shown = retention(factory.ws)
    become(factory.ws, keys["trial-1"], study="manual")
    remove(factory.ws, shown)
    assert keys["trial-1"] in left(factory.ws)


def test_killed_at_any_line_it_is_made_good_by_the_next_call(factory) -> None:
    _, keys = not_met(factory)
    with_weights(factory.ws)
    shown = retention(factory.ws)
    looking = count_lines(lambda: retention(factory.ws))
    removing_too = count_lines(lambda: remove(factory.ws, shown))
    for share in range(8):
        with_weights(factory.ws)
        moment = looking + round((removing_too - looking) * share / 8)
        assert killed_at(moment, lambda: remove(factory.ws, shown))
        remove(factory.ws, retention(factory.ws))
        assert left(factory.ws) == {keys["trial-4"]}
        assert list(factory.ws.runs.glob("*/.removed-*")) == []
        assert audit.verify(factory.ws) is None


def test_without_a_terminal_nothing_goes_unless_yes_is_said(factory, capsys) -> None:
    not_met(factory)
    with_weights(factory.ws)
    root = factory.ws.root
    assert removing.collect(root, best=1, dry_run=False, yes=False, as_json=False) == removing.WAITS
    assert removing.collect(root, best=1, dry_run=True, yes=True, as_json=False) == 0
    assert len(left(factory.ws)) == 8
    assert "Nobody needs the checkpoints of 7 jobs" in capsys.readouterr().out
    assert removing.collect(root, best=1, dry_run=False, yes=True, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["removed"], told["num_bytes"], len(told["removals"])) == (True, 7 * SIZE, 7)
    assert len(left(factory.ws)) == 1
