"""Reports: true, complete, safe to open, honest when there is little to say."""

import re
import shlex
import time
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from study_factory import IDEAS, TARGET, Idea, StudyFactory, plan, workspace_in_memory

from nightsmith.agent import account, history, report, trial_words
from nightsmith.agent.escape import plain
from nightsmith.agent.plan import TrialPlan
from nightsmith.agent.view import Seal, StudyView, TrialView
from nightsmith.evals.types import Claim, Decision, GuardrailCheck, Outcome, Target
from nightsmith.record import studies
from nightsmith.record.workspace import Workspace
from nightsmith.trainer.spec import RunResult, RunStatus

HOSTILE = (
    "</script><script>alert(1)</script> <img src=x onerror=alert(1)> {{ 7*7 }} | [click](javascript:alert(1)) `x` **y**"
)


class Page(HTMLParser):
    """What a browser would see: elements, attributes, and all text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.values: list[float] = []
        self.shown = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "data":
            self.values.append(float(dict(attrs)["value"] or ""))

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.fixture
def ws() -> Iterator[Workspace]:
    with workspace_in_memory() as ws:
        yield ws


@pytest.fixture
def factory(ws: Workspace) -> StudyFactory:
    return StudyFactory(ws)


def test_the_outcome_comes_first_in_one_plain_sentence(ws: Workspace, factory: StudyFactory):
    path = report.write(ws, factory.proven())
    expected = "PROVEN: bits per byte 0.3074 below the baseline (95 % bound 0.2791; n = 96 sealed items)."
    assert expected in Page(path.read_text()).shown
    assert path.with_name("report.md").read_text().startswith(f"# {expected}")


def test_the_page_is_self_contained_and_runs_nothing(ws: Workspace, factory: StudyFactory):
    page = Page(report.write(ws, factory.proven()).read_text())
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "action")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert {"svg", "table", "main", "h1"} <= set(page.tags)


def test_figures_carry_the_full_value_of_their_result_file(ws: Workspace, factory: StudyFactory):
    study = factory.proven()
    values = Page(report.write(ws, study).read_text()).values
    for number in range(1, 5):
        path = ws.runs / factory.key(study, f"trial-{number}") / "result.json"
        result = RunResult.model_validate_json(path.read_bytes())
        assert result.evaluation is not None
        assert result.evaluation.metrics["bits_per_byte"] in values


def test_both_forms_tell_the_same_trials_refusals_limits_and_digests(ws: Workspace, factory: StudyFactory):
    study = factory.proven()
    factory.refused(study, "num_steps lies outside the approved plan", trial=3)
    path = report.write(ws, study)
    view = history.load(ws, study)
    page, text = Page(path.read_text()).shown, path.with_name("report.md").read_text().replace("\\", "")
    told = [idea.hypothesis for idea in IDEAS] + list(account.limits(view))
    told += [view.lineage.data_digest, view.lineage.checkpoint_digest, "num_steps lies outside the approved plan"]
    told += list(plan().assumptions) + [command for _, command in account.commands(view)]
    for each in told:
        assert str(each) in page
        assert str(each) in text


def test_the_winner_can_be_trained_again_by_the_command_shown(ws: Workspace, factory: StudyFactory):
    view = history.load(ws, factory.proven())
    words = shlex.split(dict(account.commands(view))["Only the winner's training, from its own spec"])
    assert words[:2] == ["nightsmith", "train"]
    assert (ws.runs / str(view.winner_key) / "spec.json").samefile(words[2])


def test_the_goal_in_the_command_is_one_harmless_shell_word(ws: Workspace, factory: StudyFactory):
    goal = "train'; rm -rf ~ #\n$(reboot) `x`"
    (_, command) = account.commands(history.load(ws, factory.created(goal)))[0]
    assert shlex.split(command) == ["nightsmith", "run", plain(goal)]


def test_hostile_text_stays_text_in_both_forms(ws: Workspace, factory: StudyFactory):
    study = factory.planned(HOSTILE)
    factory.baseline(study)
    factory.trial(study, 1, Idea({HOSTILE: HOSTILE}, HOSTILE, -0.1, status=RunStatus.FAILED, reason=HOSTILE))
    factory.refused(study, HOSTILE)
    factory.ended(study, "STOPPED", reason=HOSTILE)
    path = report.write(ws, study)
    page = Page(path.read_text())
    assert not {"script", "img"} & set(page.tags)
    assert page.shown.count(HOSTILE) >= 5
    text = re.sub(r"```.*?```", "", path.with_name("report.md").read_text(), flags=re.DOTALL)
    assert "<script" not in text
    assert "<img" not in text
    assert "](javascript" not in text.replace("\\]", "")
    rows = [line for line in text.splitlines() if line.startswith("| 1 ")]
    assert [row.count("|") for row in rows] == [10]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60) | st.text(alphabet="<>&\"'/{}%=|`[]()ab \n", max_size=60))
def test_any_goal_and_hypothesis_is_shown_as_it_is(ws: Workspace, text: str):
    thought = TrialPlan(move="seed", hypothesis=text, calls=())
    view = StudyView(
        id="s1", workspace=str(ws.root), goal=text, state="trials", created_at="2026-11-23T22:00:00Z",
        metric="loss", lower_is_better=True, seal=Seal(strength="policy"), trials=(TrialView(number=1, plan=thought),),
    )  # fmt: skip
    page = Page(report.html(view))
    empty = Page(report.html(view.model_copy(update={"goal": "", "trials": (TrialView(number=1, plan=None),)})))
    assert page.shown.count(plain(text)) >= 2
    assert set(page.tags) - {"small", "code"} == set(empty.tags) - {"small", "code"}


@pytest.mark.parametrize("state", ["created", "planned", "baseline", "trial"])
def test_an_unfinished_study_gets_an_honest_partial_report(ws: Workspace, factory: StudyFactory, state: str):
    study = factory.created() if state == "created" else factory.planned()
    if state in ("baseline", "trial"):
        factory.baseline(study)
    if state == "trial":
        factory.trial(study, 1, IDEAS[0])
    shown = Page(report.write(ws, study).read_text()).shown
    assert "UNFINISHED" in shown
    assert "nothing is claimed yet" in shown
    assert "This is a partial report" in shown


def test_a_blocked_goal_is_reported_with_its_reason(ws: Workspace, factory: StudyFactory):
    study = factory.created("hello")
    studies.finish(ws, study, "BLOCKED", {"reason": "The goal names nothing to train."})
    shown = Page(report.write(ws, study).read_text()).shown
    assert "BLOCKED: The goal names nothing to train." in shown
    assert "Nothing is claimed." in shown
    assert "No trial was proposed" in shown


def test_an_unreached_target_is_not_dressed_up(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    factory.baseline(study)
    factory.trial(study, 1, IDEAS[1])
    factory.ended(study, "NOT_MET", reason="no promising trial")
    sentence = account.outcome_sentence(history.load(ws, study))
    assert sentence == (
        "NOT MET: no change was promoted in 1 judged trial. Nearest: trial 1, −0.0312 [−0.1142, +0.0518] on one run. "
        "The target, bits per byte at least 0.1500 below the baseline, was not reached."
    )


def test_why_it_ended_is_told_once(ws: Workspace, factory: StudyFactory):
    late, blocked = factory.planned(), factory.created("hello")
    factory.baseline(late)
    factory.ended(late, "NOT_MET", reason="203 s are left: too little to confirm trial 2.")
    studies.finish(ws, blocked, "BLOCKED", {"reason": "The goal names nothing to train."})
    told = [Page(report.write(ws, study).read_text()).shown for study in (late, blocked)]
    assert "How the study ended: 203 s are left: too little to confirm trial 2." in told[0]
    assert told[1].count("The goal names nothing to train") == 1


def test_an_open_goal_without_a_promotion_says_what_was_nearest_and_why_it_does_not_count(
    ws: Workspace, factory: StudyFactory
):
    target = Target(metric="bits_per_byte", op="min")
    study = factory.planned(targets=(target,))
    factory.baseline(study)
    factory.trial(study, 1, IDEAS[0])
    factory.confirmed(study, 1, IDEAS[0].difference, Decision.INCONCLUSIVE)
    claim = Claim(target=target, estimate=-0.19, bound=-0.16, n=96, met=True, proven=True)
    factory.ended(study, "NOT_MET", reason="none", winner=1, claims=[claim.model_dump(mode="json")])
    page = Page(report.write(ws, study).read_text()).shown
    assert "on 3 fresh seeds; p < 0.0001, needed below 0.0167." in page
    assert "On the sealed split: bits per byte 0.1900 below the baseline (95 % bound 0.1600; n = 96" in page
    assert "better, by the bound" in page


def test_a_change_is_told_from_what_it_was_in_the_recipe_that_the_trial_started_from(
    ws: Workspace, factory: StudyFactory
):
    view = history.load(ws, factory.proven())
    told = [trial_words.change_from(view, trial) for trial in view.proposed]
    assert told[0] == "learning_rate 0.001 → 0.003"
    assert told[1] == "schedule = wsd"  # not named in the recipe


def test_a_claim_that_the_bound_does_not_carry_says_so(ws: Workspace, factory: StudyFactory):
    claim = Claim(target=TARGET, estimate=-0.17, bound=-0.12, n=96, met=True, proven=False)
    view = history.load(ws, factory.proven()).model_copy(update={"outcome": Outcome.MET, "claims": (claim,)})
    sentence = account.outcome_sentence(view)
    assert "0.1700 below the baseline (95 % bound 0.1200;" in sentence
    assert "is met by the estimate, not by the bound" in sentence


def test_a_bound_on_the_other_side_of_the_baseline_is_named_in_full():
    claim = Claim(target=TARGET, estimate=-0.02, bound=0.01, n=96, met=False, proven=False)
    assert "0.0200 below the baseline (95 % bound 0.0100 above the baseline;" in account.claim_words(claim)


def test_a_promoted_recipe_without_a_threshold_is_an_improvement(ws: Workspace, factory: StudyFactory):
    study = factory.planned(targets=(Target(metric="bits_per_byte", op="min"),))
    factory.baseline(study)
    factory.trial(study, 1, IDEAS[3])
    factory.confirmed(study, 1, IDEAS[3].difference, Decision.PROMOTED)
    factory.ended(study, "IMPROVED", reason="promoted", winner=1)
    sentence = account.outcome_sentence(history.load(ws, study))
    assert sentence.startswith("IMPROVED: trial 1 changes bits per byte by −0.3087 on the dev split (3 fresh seeds")
    assert sentence.endswith("The goal named no threshold.")


def test_the_seals_strength_and_looks_are_stated(ws: Workspace, factory: StudyFactory):
    shown = Page(report.write(ws, factory.proven()).read_text()).shown
    assert "Fold 0 of the sealed split was opened. Strength of the seal: policy (jobs were given only" in shown
    assert "Looks taken at it, by every study: 1 of 1." in shown
    assert "a rule, not a wall" in shown


def test_what_was_expected_is_held_against_what_was_seen(ws: Workspace, factory: StudyFactory):
    told = [account.expectation_words(trial) for trial in history.load(ws, factory.proven()).trials]
    assert told == [
        "",
        "expected lower bits per byte: borne out",
        "expected lower bits per byte: not decided",
        "expected lower bits per byte: the contrary was seen",
        "expected lower bits per byte: borne out",
    ]


def test_a_broken_guardrail_is_told_with_what_was_seen(ws: Workspace, factory: StudyFactory):
    guard = Target(metric="accuracy", op=">=", value=-0.01, relative_to="baseline")
    view = history.load(ws, factory.proven())
    trial = view.trials[1]
    assert trial.screen is not None
    checks = (GuardrailCheck(guardrail=guard, estimate=-0.03, kept=False), GuardrailCheck(guardrail=guard, kept=False))
    judged = trial.model_copy(update={"screen": trial.screen.model_copy(update={"guardrails": checks})})
    shown = Page(report.html(view.model_copy(update={"trials": (judged,)}))).shown
    words = "guardrail accuracy at most 1.0 points below the baseline: not kept"
    assert f"{words} (3.0 points below the baseline); {words} (not measured)" in shown


def test_the_approval_is_named(ws: Workspace, factory: StudyFactory):
    assert (
        "Approved by operator beforehand (--yes), 2026-11-23 22:00 UTC."
        in Page(report.write(ws, factory.proven()).read_text()).shown
    )
    unapproved = report.write(ws, factory.created()).with_name("report.md").read_text()
    assert "Nothing was approved, so nothing could be spent." in unapproved


def test_an_unopened_seal_is_stated_too(ws: Workspace, factory: StudyFactory):
    shown = Page(report.write(ws, factory.planned()).read_text()).shown
    assert "The sealed split was not opened, and nothing is claimed about a checkpoint." in shown


@pytest.mark.parametrize(("strength", "told"), [("jail", "in a sandbox"), ("user", "another user")])
def test_a_stronger_seal_is_told_as_such(ws: Workspace, factory: StudyFactory, strength: str, told: str):
    view = history.load(ws, factory.created())
    sealed = view.model_copy(update={"seal": Seal(strength=strength, opened=True, fold=1, looks=3)})
    assert told in account.seal_words(sealed)
    assert "a rule, not a wall" not in " ".join(account.limits(sealed))
    assert "looked at 3 times" in " ".join(account.limits(sealed))


def test_writing_again_replaces_both_files_and_leaves_no_drafts(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    report.write(ws, study)
    factory.baseline(study)
    path = report.write(ws, study)
    assert "4 seeds" in path.read_text()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["index.html", "report.md"]


def test_a_write_that_fails_leaves_the_old_report(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    path = report.write(ws, study)
    before = path.read_text()
    path.with_name("report.md").unlink()
    path.with_name("report.md").mkdir()
    with pytest.raises(OSError, match=r"report\.md"):
        report.write(ws, study)
    assert path.read_text() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["index.html", "report.md"]


def test_a_night_of_two_thousand_trials_is_drawn_within_seconds(ws: Workspace, factory: StudyFactory):
    view = history.load(ws, factory.proven())
    night = tuple(view.trials[1 + number % 4].model_copy(update={"number": number}) for number in range(1, 2001))
    begun = time.monotonic()
    assert len(report.html(view.model_copy(update={"trials": night}))) < 5_000_000
    assert time.monotonic() - begun < 10
