"""MLflow's first words: outcome first, what waits for a person, nothing that a model wrote."""

from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt
from study_factory import GOAL, IDEAS, Idea, StudyFactory, workspace_in_memory

from nightsmith.agent import dossier, history, morning
from nightsmith.evals.types import Claim, Decision, Target
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import tracking


@pytest.fixture
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


@pytest.fixture
def factory(ws: Workspace) -> StudyFactory:
    return StudyFactory(ws)


def headline(ws: Workspace, study: str) -> str:
    return morning.headline(history.load(ws, study))


def test_a_study_is_named_by_its_outcome_and_its_claim(ws: Workspace, factory: StudyFactory):
    assert headline(ws, factory.proven()) == "s1 PROVEN −0.3074 bits per byte"


@pytest.mark.parametrize(
    ("target", "estimate", "told"),
    [
        (Target(metric="exact_match", op=">=", value=0.85), 0.871, "87.1 % exact match"),
        (
            Target(metric="perplexity", op="<=", value=0.5, relative_to="baseline", relation="ratio"),
            0.44,
            "0.440 × per",
        ),
        (Target(metric="token_f1", op=">=", value=0.02, relative_to="baseline"), 0.031, "+3.1 points token F1"),
    ],
)
def test_claims_are_named_as_they_were_asked_for(
    ws: Workspace, factory: StudyFactory, target: Target, estimate: float, told: str
):
    study = factory.planned(targets=(target,))
    claim = Claim(target=target, estimate=estimate, bound=estimate, n=9, met=True, proven=False)
    factory.ended(study, "MET", claims=[claim.model_dump(mode="json")])
    assert headline(ws, study).startswith(f"{study} MET {told}")


def test_without_a_claim_the_name_says_what_was_promoted_or_how_much_was_tried(ws: Workspace, factory: StudyFactory):
    improved, missed, blocked, waiting = (factory.planned() for _ in range(4))
    factory.baseline(improved)
    factory.trial(improved, 1, IDEAS[0])
    factory.confirmed(improved, 1, IDEAS[0].difference)
    factory.ended(improved, "IMPROVED", claims=[], winner=1)
    factory.trial(missed, 1, Idea({"x": 1}, "No.", 0.3, Decision.REJECTED))
    factory.ended(missed, "NOT_MET", claims=[])
    factory.ended(blocked, "BLOCKED", reason="There is no file a.csv.")
    assert headline(ws, improved) == f"{improved} IMPROVED −0.1806 bits per byte"
    assert headline(ws, missed) == f"{missed} NOT MET, 1 trial judged"
    assert headline(ws, blocked) == f"{blocked} BLOCKED"
    assert headline(ws, waiting) == f"{waiting} paused"
    assert morning.told(history.load(ws, blocked)) == "There is no file a.csv. Nothing is claimed."
    assert morning.told(history.load(ws, waiting)).startswith(
        f"nightsmith resume {waiting} goes on: the study is paused"
    )


def test_the_description_begins_with_the_outcome_and_leads_to_the_report(ws: Workspace, factory: StudyFactory):
    told = morning.note(history.load(ws, factory.proven()), "#/report")
    first, _, rest = told.partition("\n")
    assert first.startswith("PROVEN: bits per byte 0.3074 below the baseline")
    assert "*" not in first
    assert "[The whole report](#/report)" in rest
    assert "4 (winner)" in rest
    for idea in IDEAS:
        assert idea.hypothesis not in told


def test_a_strangers_goal_stays_text(ws: Workspace, factory: StudyFactory):
    study = factory.planned("**a** <script>x</script> | [l](https://evil.example)\n# h")
    view = history.load(ws, study)
    for told in (morning.note(view, "#/r"), morning.summary(history.summaries(ws), [view], {})):
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(told)
        assert "<script" not in html
        assert 'href="https://evil' not in html
        assert "<strong>" not in html
        assert "<h1>" not in html


def test_the_summary_begins_with_what_waits_then_the_newest_outcome(ws: Workspace, factory: StudyFactory):
    proven, asked = factory.proven(), factory.created("Make it better.")
    dossier.save(ws, asked, "interpretation", {"status": "needs_answers", "spec": None, "num_answers": 0})
    rows = history.summaries(ws)
    told = morning.summary(rows, [history.load(ws, row.id, jobs=False) for row in rows], {proven: "#/runs/1"})
    first = told.splitlines()[0]
    assert first.startswith(f"1 waits for you: {asked} needs an answer. Newest: {proven} PROVEN −0.3074 bits per byte")
    assert "nightsmith resume s2 --answer" in told
    assert "[s1](#/runs/1)" in told
    assert GOAL[:50] in told


def test_a_long_summary_fits_into_a_tag(ws: Workspace, factory: StudyFactory):
    for _ in range(30):
        factory.created("Goal " * 100)
    rows = history.summaries(ws)
    told = morning.summary(
        rows,
        [history.load(ws, row.id, jobs=False) for row in rows],
        {row.id: f"#/experiments/1/runs/{row.id:f>150}" for row in rows},
    )
    assert len(told) <= 5000
    assert told.startswith("30 wait for you: s30 is paused, s29 is paused, s28 is paused and 27 more.")
    assert "nightsmith studies" in told.splitlines()[-1]


def test_publishing_shows_the_study_and_the_summary_and_twice_is_once(ws: Workspace, factory: StudyFactory):
    study = factory.proven()
    morning.publish(ws, study)
    morning.publish(ws, study)
    assert tracking.pages(ws).names == {study: "s1 PROVEN −0.3074 bits per byte"}
    assert tracking.differences(ws, study) == []
    experiment = tracking.open_client(ws).get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment.tags["mlflow.note.content"].startswith("Nothing waits for you. Newest: s1 PROVEN")
