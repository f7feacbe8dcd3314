"""The terminal: readable at 80 columns, plain where nobody watches, deaf to codes in strangers' text."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from study_factory import GOAL, IDEAS, Idea, StudyFactory, workspace_in_memory

from nightsmith.agent import history, render
from nightsmith.record import events
from nightsmith.record.events import EventKind
from nightsmith.record.workspace import Workspace
from nightsmith.trainer.jobs import Progress
from nightsmith.trainer.spec import RunResult

HOSTILE = "[bold red]loud[/] \x1b[2J\x1b]0;title\x07 \u202egoal :smile: [link=https://evil.example]x[/link]"
SHOWN = "[bold red]loud[/] [2J]0;title goal :smile: [link=https://evil.example]x[/link]"


@pytest.fixture
def ws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with workspace_in_memory() as ws:
        yield ws


@pytest.fixture
def factory(ws: Workspace) -> StudyFactory:
    return StudyFactory(ws)


def lines(text: str) -> list[str]:
    assert "\x1b" not in text
    return text.splitlines()


def joined(text: str) -> str:
    return " ".join(text.split())


def test_a_study_is_shown_outcome_first_within_80_columns(ws: Workspace, factory: StudyFactory):
    shown = lines(render.show(history.load(ws, factory.proven())))
    assert shown[0].startswith("PROVEN: bits per byte 0.3074 below the baseline (95 % bound 0.2791")
    assert max(map(len, shown)) <= 80
    assert re.search(r"4\* .*2\.6407.*−0\.3087.*PROMOTED", "\n".join(shown))


def test_studies_take_one_line_each(ws: Workspace, factory: StudyFactory):
    factory.proven()
    factory.created("hello")
    head, first, second = lines(render.study_table(history.summaries(ws)))
    assert head.split() == ["Study", "Begun", "Outcome", "Trials", "Goal"]
    assert first.split()[0] == "s2"
    assert "PROVEN" in second
    assert max(map(len, (head, first, second))) <= 80


def test_an_empty_workspace_says_how_to_begin(ws: Workspace):
    assert 'nightsmith run "GOAL"' in render.study_table(history.summaries(ws))


def test_the_plan_card_shows_calls_cost_and_assumptions(ws: Workspace, factory: StudyFactory):
    card = render.plan_card(ws, factory.planned())
    assert max(map(len, lines(card))) <= 80
    for told in (
        "build_dataset(sources=['python-stdlib'], dedup=True, dev_share=0.1)",
        "pretrain(preset=nano, num_steps=64, learning_rate=0.001, seed=0)",
        "bits per byte at least 0.1500 below the baseline",
        "5 min 00 s in all, 25 s a trial, 720.9 k training tokens",
        "measured on this machine (6 runs)",
        "The model is the `nano` preset",
        "4 trials, 9 min 00 s",
        "/architecture",
    ):
        assert told in joined(card)


def test_strangers_text_steers_neither_terminal_nor_markup(ws: Workspace, factory: StudyFactory):
    study = factory.planned(HOSTILE)
    factory.trial(study, 1, Idea({"x": HOSTILE}, HOSTILE, 0.1))
    factory.refused(study, HOSTILE)
    told = [
        render.show(history.load(ws, study)),
        render.plan_card(ws, study),
        render.study_table(history.summaries(ws)),
        render.event_line(events.read(ws, study=study)[-1]),
        render.questions([{"text": HOSTILE, "default": HOSTILE}]),
    ]
    for text in told:
        assert not re.search(r"[\x1b\x07\u202e]", text)
        assert "[bold red]loud[/]" in joined(text)
    assert SHOWN in joined(told[0])


def test_an_event_is_one_line(ws: Workspace, factory: StudyFactory):
    study = factory.created()
    data = {"decision": "REJECTED", "reason": "worse, beyond seed noise\n" * 9}
    events.append(ws, study, "verdict", trial=3, data=data)
    (line,) = lines(render.event_line(events.read(ws, study=study)[-1]))
    assert re.match(r"\d\d:\d\d:\d\d verdict trial 3: REJECTED: worse, beyond seed noise", line)


NOISE = {"metric": "bits_per_byte", "mean": 2.9519, "seed_deviation": 0.0082, "seeds": 4}
JOB = {"role": "trial", "attempt": 1, "devices": ["cpu:0"], "kind": "pretrain"}
ENDED = {"status": "FINISHED", "reason": "", "wall_s": 24.6, "metrics": {"bits_per_byte": 2.7688}}
FAILED = {"status": "OUT_OF_MEMORY", "reason": "Memory was exhausted.", "wall_s": 3.0, "metrics": {}}
ESTIMATE = {"estimate": {"total_s": 300.0, "trial_s": 25.0, "tokens": 1.0, "gpu_hours": 0.0, "basis": "assumed"}}


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        ("study_started", {"goal": "x"}, ""),
        ("interpreted", {"status": "ready", "reasons": []}, "ready"),
        ("interpreted", {"status": "needs_answers", "reasons": ["No target."]}, "needs answers: No target."),
        ("preflight", ESTIMATE, "about 5 min 00 s in all, 25 s a trial (assumed)"),
        ("approval", {"by": "operator", "how": "flag", "hash": "0" * 64}, "by operator (flag)"),
        ("planned", NOISE, "baseline 2.9519 bits per byte, seed deviation 0.0082 (4 seeds)"),
        ("trial_proposed", {"hypothesis": "Up.", "change": {"learning_rate": 0.003}}, "learning_rate = 0.003 (Up.)"),
        ("job_started", JOB, "trial on cpu:0"),
        ("job_started", JOB | {"attempt": 2}, "trial on cpu:0, attempt 2"),
        ("job_finished", ENDED, "FINISHED after 25 s: bits per byte 2.7688"),
        ("job_finished", FAILED, "OUT_OF_MEMORY after 3.0 s: Memory was exhausted."),
        ("data_built", {"digest": "abc", "rows": {"dev": 1, "train": 3}}, "digest abc, rows dev=1 train=3"),
        ("warning", {"message": "The record was restored."}, "The record was restored."),
        ("outcome", {"outcome": "PROVEN", "reason": "The bound meets it."}, "PROVEN: The bound meets it."),
        ("report", {}, ""),
    ],
)
def test_an_events_particulars_are_readable(
    ws: Workspace, factory: StudyFactory, kind: EventKind, data: dict[str, object], told: str
):
    study = factory.created()
    events.append(ws, study, kind, data=data)
    line = render.event_line(events.read(ws, study=study)[-1])
    assert line[9:] == ": ".join(part for part in (kind.replace("_", " "), told) if part)


@pytest.mark.usefixtures("ws")
def test_an_interpretation_shows_what_is_still_asked():
    answer = {
        "status": "needs_answers", "spec": {"goal": GOAL, "targets": []}, "sources": {}, "reasons": [], "plan": None,
        "questions": [{"field": "targets", "text": "Which figure must be reached?", "default": "as low as possible"}],
        "estimate": None,
    }  # fmt: skip
    shown = joined(render.interpretation(answer))
    assert shown.startswith("Understood: needs answers")
    assert "Which figure must be reached? [as low as possible]" in shown


@pytest.mark.parametrize(
    ("how", "told"), [("question", "--answer"), ("approval", "--yes"), ("interrupted", "resume s1")]
)
def test_a_study_that_waits_says_how_to_go_on(ws: Workspace, factory: StudyFactory, how: str, told: str):
    assert told in render.ending(ws, factory.created(), how)


def test_the_end_names_outcome_cost_and_report(ws: Workspace, factory: StudyFactory):
    shown = joined(render.ending(ws, factory.proven(), "done"))
    assert shown.startswith("PROVEN:")
    assert "3 min 07 s of 9 min 00 s" in shown
    assert "index.html" in shown.replace(" ", "")


def test_a_single_job_ends_with_its_figures(ws: Workspace, factory: StudyFactory):
    study = factory.planned()
    key = factory.trial(study, 1, IDEAS[0])
    result = RunResult.model_validate_json((ws.runs / key / "result.json").read_bytes())
    shown = joined(render.result(ws, result))
    assert shown.startswith("FINISHED")
    assert "bits per byte 2.7688" in shown


def test_progress_tells_step_speed_and_time_left():
    at = Progress(phase="train", step=31, num_steps=64, loss=3.214, tokens_per_s=22_100.0, eta_s=12.4)
    assert render.progress_words("3f2a99", at) == "3f2a train 31/64, loss 3.21, 22.1 k tokens/s, 12 s left"


def test_progress_of_a_job_that_has_not_begun_is_a_word():
    assert render.progress_words("3f2a99", Progress()) == "3f2a starting"


def test_progress_of_an_evaluation_is_its_share():
    assert render.progress_words("3f2a99", Progress(phase="evaluate", step=64, num_steps=64, evaluated=0.5)) == (
        "3f2a evaluate 50 %"
    )


def test_nothing_is_drawn_where_nobody_watches(ws: Workspace, capsys: pytest.CaptureFixture[str]):
    line = render.ProgressLine()
    line.draw(ws, [])
    line.clear()
    assert capsys.readouterr().out == ""


def test_importing_the_renderer_loads_neither_rich_nor_anything_heavy():
    heavy = {"rich", "torch", "mlflow", "scipy", "langgraph", "duckdb", "jinja2"}
    code = f"import sys, nightsmith.agent.render; print({heavy} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
