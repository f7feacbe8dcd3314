"""What the terminal shows: plan cards, tables, event lines, one moving progress line. Plain text where nobody watches.

Every function returns text for 80 columns and more. Strangers' words pass through `drawing.text`.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nightsmith.agent import account, dossier, drawing, event_words, figures, history, side_words
from nightsmith.agent.escape import plain
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.telling import telling
from nightsmith.agent.view import StudySummary, StudyView, TrialView
from nightsmith.record.events import Event
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.data.plan import BuildDataset
from nightsmith.trainer.spec import RunResult

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from nightsmith.trainer.jobs import Progress

_TIME = len("22:00:00 ")
_LINES = 12
"""Refusals and warnings of a study that `show` prints without being asked for all."""
_STYLES = {
    "PROVEN": "bold green", "MET": "bold green", "IMPROVED": "bold green",
    "PROMOTED": "green", "FINISHED": "green",
    "REJECTED": "red", "TAMPERED": "bold red", "BLOCKED": "bold red", "INCONCLUSIVE": "yellow", "UNVERIFIED": "yellow",
    "NOT_MET": "bold yellow", "STOPPED": "bold yellow",
}  # fmt: skip
_EVENT_STYLES = {"refused": "red", "warning": "yellow", "outcome": "bold", "verdict": "bold", "confirmation": "bold"}


def study_table(rows: Sequence[StudySummary]) -> str:
    """`nightsmith studies`: one line a study."""
    if not rows:
        return 'No studies yet. Begin one with: nightsmith run "GOAL"'
    table = drawing.table("Study", "Begun", "Outcome", ">Trials", "Goal")
    table.expand = True
    table.columns[-1].no_wrap, table.columns[-1].overflow, table.columns[-1].ratio = True, "ellipsis", 1
    for row in rows:
        outcome = row.outcome.value if row.outcome else row.standing.value
        begun = row.created_at.astimezone().strftime("%m-%d %H:%M")
        promoted = f", {row.num_promoted} promoted" if row.num_promoted else ""
        table.add_row(
            drawing.text(row.id), begun, _decision(outcome), f"{row.num_trials}{promoted}", drawing.text(row.goal)
        )
    return drawing.drawn(table)


def show(view: StudyView, *, every: bool = False) -> str:
    """`nightsmith show`: outcome first, then trials (of a long study the telling ones), cost, what was refused."""
    head = [_sentence(account.outcome_sentence(view)), drawing.text(f"Goal: {view.goal}"), *_facts(view), ""]
    shown = view.proposed if every else telling(view)
    left = len(view.proposed) - len(shown)
    more = [drawing.text(f"… {left:,} more trials, --all shows them.", style="dim")] if left else []
    tail: list[RenderableType] = [*_sides(view)]
    tail += _lines("Refused", _newest([refusal.what for refusal in view.refusals], every=every))
    tail += _lines("Noticed", _newest(view.warnings, every=every))
    tail.append(drawing.text(f"Cost: {account.cost_words(view)}"))
    return drawing.drawn(*head, *([_trials(view, shown), *more, ""] if shown else []), *tail)


def _newest(lines: Sequence[str], *, every: bool) -> list[str]:
    """The newest lines; how many more there are."""
    left = 0 if every else max(0, len(lines) - _LINES)
    return [*([f"… {left:,} earlier ones, --all shows them."] if left else []), *lines[left:]]


def plan_card(ws: Workspace, study: str) -> str:
    """What a person is asked to approve: the goal as understood, every call, time and tokens, assumptions."""
    reading: dict[str, Any] = dossier.load(ws, study, "interpretation") or {}
    return planned(reading, dossier.study_plan(ws, study), f"Plan of {study}")


def planned(reading: Mapping[str, Any], plan: StudyPlan, title: str) -> str:
    """A goal as it was read, and the plan made of it."""
    shown = plan.model_dump(mode="json")
    answer = {**reading, "plan": shown["calls"], "estimate": shown["estimate"]}
    if not plan.stages:
        return _card(answer, title, _data_facts(plan), _lines("Assumed", plan.assumptions))
    confirmed = f"at most {plan.max_confirmations} confirmed on {plan.seeds} fresh seeds"
    trials = (
        f"at most {plan.max_trials}, {plan.parallel} side by side, each job ended after "
        f"{figures.duration(plan.job_limit_s)}; {confirmed if plan.max_confirmations else 'none is confirmed'}"
    )
    space = ", ".join(tunable.name for tunable in plan.space) or "nothing"
    more = [("Trials", trials), ("Trials may change", space)]
    return _card(answer, title, more, _lines("Assumed", plan.assumptions))


def _data_facts(plan: StudyPlan) -> list[tuple[str, str]]:
    """What is done to the data, step by step, and what they become."""
    builds = [args for call in plan.calls if isinstance(args := registry.validate(call), BuildDataset)]
    steps = (step.kind for args in builds for step in args.compiled())
    splits = (name for args in builds for name in args.splits())
    second = [("Against", plan.reference.path)] if plan.reference else []
    return [*second, ("Steps", ", then ".join(steps)), ("Splits", ", ".join(splits))]


def interpretation(answer: Mapping[str, Any]) -> str:
    """`nightsmith plan`: how a goal is understood, what would be run, what is still asked."""
    extra = [*_lines("Why not", answer.get("reasons") or ())]
    extra += _lines("The goal leaves open", [_question(question) for question in answer.get("questions") or ()])
    return _card(answer, f"Understood: {str(answer['status']).replace('_', ' ')}", [], extra)


def questions(asked: Sequence[Mapping[str, Any]]) -> str:
    """Open questions, each with the answer that is taken by default."""
    return drawing.drawn(*_lines("The goal leaves open", [_question(question) for question in asked]))


def event_line(event: Event, *, folded: bool = False) -> str:
    """One event on one line: time, what happened, the particulars; folded, it goes on under its own beginning."""
    where = f" trial {event.trial}" if event.trial is not None else ""
    told = f"{event.at.astimezone():%H:%M:%S} {event.kind.replace('_', ' ')}{where}"
    particulars = event_words.particulars(event)
    line = drawing.text(f"{told}: {particulars}" if particulars else told)
    line.stylize(_EVENT_STYLES.get(event.kind, ""), _TIME)
    return drawing.drawn(drawing.hung(line, _TIME) if folded else line, wrap=folded)


def ending(ws: Workspace, study: str, how: str) -> str:
    """The last words of `run`: how it ended, or how to go on."""
    if how == "question":
        return f'{study} waits for an answer: nightsmith resume {study} --answer "…"'
    if how == "approval":
        return f"{study} waits for an approval: nightsmith resume {study} --yes"
    if how == "interrupted":
        return f"Saved. nightsmith resume {study} goes on exactly here."
    view = history.load(ws, study)
    where = ws.root / "reports" / study / "index.html"
    told = (f"Cost: {account.cost_words(view)}", f"Report: {where}")
    return drawing.drawn(_sentence(account.outcome_sentence(view)), *map(drawing.text, told))


OWN_FIGURES = ("train/loss", "rewards/", "eval/")
"""What is shown of a job that was started by hand, beside its evaluation; all of it is in the result file."""


def result(ws: Workspace, ended: RunResult) -> str:
    """The end of one job that was started by hand."""
    rows = [("Job", ended.key), ("Took", figures.duration(ended.wall_s)), ("Tokens", figures.count(ended.num_tokens))]
    evaluation = ended.evaluation
    for name, value in (evaluation.metrics if evaluation else {}).items():
        rows.append((figures.metric_label(name), figures.value(name, value)))
    own = {name: value for name, value in ended.metrics.items() if name.startswith(OWN_FIGURES)}
    rows += [(name, f"{value:.4g}") for name, value in own.items()]
    rows += [("Checkpoint", ended.checkpoint)] if ended.checkpoint else []
    rows += [("Log", str(ws.root / "runs" / ended.key / "log.txt")), ("", ended.reason)]
    return drawing.drawn(_decision(ended.status.value), drawing.pairs([row for row in rows if row[1]]))


class ProgressLine:
    """One line at the bottom of a terminal that tells how far running jobs are. Draws nothing elsewhere."""

    def __init__(self) -> None:
        self._drawn = False

    def draw(self, ws: Workspace, keys: Sequence[str]) -> None:
        """Replace the line."""
        if not sys.stdout.isatty():
            return
        from nightsmith.trainer import jobs  # reads run folders: needed only while something runs

        told = "  |  ".join(progress_words(key, jobs.progress(ws, key)) for key in keys)
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r\x1b[2K{plain(told)[:width]}")
        sys.stdout.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take the line away, so that ordinary text can be printed."""
        if self._drawn:
            sys.stdout.write("\r\x1b[2K")
            sys.stdout.flush()
        self._drawn = False


def progress_words(key: str, at: "Progress") -> str:
    """`3f2a train 31/64, loss 3.21, 22.1 k tokens/s, 12 s left`; `3f2a evaluate 50 %`."""
    phase = f"{key[:4]} {at.phase or 'starting'}"
    if at.evaluated is not None:
        return f"{phase} {100 * at.evaluated:.0f} %"
    if at.step is None:
        return phase
    told = [f"{phase} {at.step}/{at.num_steps}"]
    told += [f"loss {at.loss:.2f}"] if at.loss is not None else []
    told += [f"{figures.count(at.tokens_per_s)} tokens/s"] if at.tokens_per_s else []
    told += [f"{figures.duration(at.eta_s)} left"] if at.eta_s is not None else []
    return ", ".join(told)


def _question(question: Mapping[str, Any]) -> str:
    default = f" [{question['default']}]" if question.get("default") else ""
    return f"{question['text']}{default}"


def _card(
    answer: Mapping[str, Any], title: str, more: Sequence[tuple[str, str]], extra: "Sequence[RenderableType]"
) -> str:
    body: list[RenderableType] = [drawing.text(title, style="bold")]
    if answer.get("spec"):
        body.append(
            drawing.pairs([*_understood(GoalSpec.model_validate(answer["spec"]), answer.get("sources") or {}), *more])
        )
    if answer.get("plan"):
        calls = [f"{call['tool']}({_arguments(call['args'])})" for call in answer["plan"]]
        body += _lines("Calls", calls)
    if estimate := answer.get("estimate"):
        trials = (
            f", {figures.duration(estimate['trial_s'])} a trial, {figures.count(estimate['tokens'])} training tokens, "
            f"{estimate['gpu_hours']:.2f} GPU-hours"
        )
        told = (
            f"Estimate: {figures.duration(estimate['total_s'])} in all"
            f"{trials if estimate['tokens'] else ''} ({estimate['basis']})"
        )
        body.append(drawing.text(told))
    return drawing.drawn(*body, *extra)


def _understood(spec: GoalSpec, sources: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The spec in words; what the goal did not name is marked."""
    limits = spec.budget
    spend = [
        figures.counted(limits.max_trials, "trial") if limits.max_trials is not None else "",
        figures.duration(limits.wall_clock_s) if limits.wall_clock_s else "",
        f"{limits.gpu_hours:g} GPU-hours" if limits.gpu_hours is not None else "",
        f"{figures.count(limits.tokens)} tokens" if limits.tokens else "",
        f"{limits.cost.amount:,.2f} {limits.cost.currency}" if limits.cost else "",
        f"until {limits.deadline.time}" if limits.deadline else "",
    ]
    rows = [
        ("Goal", spec.goal),
        ("Work", ", then ".join(spec.methods) or spec.intent),
        ("Model", spec.model or ("from scratch" if spec.methods[:1] == ("pretrain",) else "")),
        ("Data", "; ".join(f"{data.ref} ({data.role})" for data in spec.data)),
        ("Target", "; ".join(figures.target_words(target) for target in spec.targets)),
        ("Guardrails", "; ".join(figures.target_words(target) for target in spec.guardrails)),
        ("Forbidden", ", ".join(spec.avoid)),
        ("Settings", ", ".join(f"{setting.name} = {figures.setting(setting.value)}" for setting in spec.settings)),
        ("Budget", ", ".join(part for part in spend if part) or "no limit named"),
        ("By default", ", ".join(pointer for pointer, source in sources.items() if source == "default")),
    ]
    return [row for row in rows if row[1]]


def _facts(view: StudyView) -> "list[RenderableType]":
    if view.built:
        found = [(split.name, f"{figures.counted(split.rows, 'row')}, {split.path}") for split in view.built]
        return [drawing.pairs(found), *_lines("Found", view.findings)]
    rows = [("Target", account.targets_words(view))]
    if view.baseline_mean is not None:
        told = f"{figures.value(view.metric, view.baseline_mean)} on dev ({side_words.baseline_note(view)})"
        rows.append(("Baseline", told))
    if len(view.best) > 1:
        best = view.best[-1]
        rows.append(("Best screened", f"{figures.value(view.metric, best.value)} on dev (trial {best.trial})"))
    if view.seal.opened:
        rows.append(("Seal", account.seal_words(view)))
    return [drawing.pairs(rows)]


def _sides(view: StudyView) -> "list[RenderableType]":
    """Baseline and winner side by side, one table a split."""
    parts: list[RenderableType] = []
    if view.sides is None:
        return parts
    for split in view.sides.splits:
        table = drawing.table(f"On {split.split}, {split.num_items} rows", ">Baseline", f">Trial {view.sides.trial}")
        for pair in split.metrics:
            cells = (
                f"{figures.value(pair.metric, side.value)} {side_words.range_words(pair.metric, side)}"
                for side in (pair.before, pair.after)
            )
            table.add_row(figures.metric_label(pair.metric), *cells)
        parts += [table, ""]
    return parts


def _trials(view: StudyView, shown: Sequence[TrialView]) -> "Table":
    table = drawing.table("#", "Change", ">Dev", ">Difference [95 %]", "Verdict", ">Cost")
    for trial in shown:
        value = trial.screen.value if trial.screen else None
        verdict = _decision(trial.decision.value if trial.decision else trial.status)
        mark = "*" if trial.number == view.winner else ""
        change = figures.change(trial.plan.change) if trial.plan else "?"
        table.add_row(
            f"{trial.number}{mark}", drawing.text(change), figures.value(view.metric, value),
            _estimate(view, trial), verdict, figures.duration(trial.wall_s),
        )  # fmt: skip
    return table


def _estimate(view: StudyView, trial: TrialView) -> str:
    """The interval on a line of its own: at 80 columns both do not fit side by side."""
    return account.estimate_words(view, trial).replace(" [", "\n[")


def _arguments(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in args.items())


def _lines(title: str, lines: Sequence[str]) -> "list[RenderableType]":
    """A heading and its points; a long point goes on under its own beginning."""
    from rich.table import Table

    points = Table.grid(padding=(0, 1))
    for line in lines:
        points.add_row("  -", drawing.text(line))
    return [drawing.text(f"{title}:"), points] if lines else []


def _sentence(sentence: str) -> "Text":
    """The outcome's word in its colour, the rest as it is."""
    text = drawing.text(sentence, style="bold")
    word = sentence.partition(":")[0]
    text.stylize(_STYLES.get(word.replace(" ", "_"), ""), 0, len(word))
    return text


def _decision(word: str) -> "Text":
    return drawing.text(word.replace("_", " "), style=_STYLES.get(word, ""))
