"""What MLflow says first: what happened tonight. Names and descriptions, rendered by code from the record.

A description is Markdown whose first line is plain: lists show it raw, pages fold what comes after it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from nightsmith.agent import account, figures, history
from nightsmith.agent.escape import markdown, plain
from nightsmith.agent.standing import Standing, how_on
from nightsmith.agent.telling import telling
from nightsmith.agent.view import StudySummary, StudyView
from nightsmith.evals.targets import is_absolute
from nightsmith.evals.types import Decision, Outcome
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import tracking

NEWEST = 20
"""Studies that the summary names."""
ROOM = 4900
"""Characters of a description; MLflow takes 5,000."""


def publish(ws: Workspace, study: str) -> None:
    """Show the study in MLflow as it stands now: its figures, its name and description, the summary of all studies."""
    tracking.project(ws, study)
    view = history.load(ws, study)
    pages = tracking.pages(ws)
    tracking.describe(ws, study, name=headline(view), told=told(view), note=note(view, pages.reports[study]))
    summarise(ws)


def refresh(ws: Workspace, said: Callable[[str], None]) -> None:
    """Publish what MLflow does not show as it stands: studies from an older version, interrupted, or waiting now."""
    shown = tracking.pages(ws).names
    for row in reversed(history.summaries(ws)):
        if shown.get(row.id) == headline(history.load(ws, row.id, jobs=False)):
            continue
        said(f"Showing {row.id} in MLflow")
        try:
            publish(ws, row.id)
        except Exception as error:  # one study that MLflow cannot take must not hide the others
            print(f"nightsmith: MLflow does not show {row.id} as it is: {error}", file=sys.stderr)
    summarise(ws)


def summarise(ws: Workspace) -> None:
    """Write the summary of the newest studies, and what waits for a person."""
    rows = history.summaries(ws)
    views = [history.load(ws, row.id, jobs=False) for row in rows[:NEWEST]]
    tracking.summarise(ws, summary(rows, views, tracking.pages(ws).studies))


def headline(view: StudyView) -> str:
    """A study's name in MLflow, outcome first: `s3 PROVEN −0.2956 bits per byte`."""
    label = figures.metric_label(view.metric)
    judged = sum(1 for trial in view.proposed if trial.verdict)
    trials = f"{judged} trial{'' if judged == 1 else 's'} judged"
    if view.outcome is None:
        return f"{view.id} {view.standing.value}{f', {trials}' if judged else ''}"
    name = f"{view.id} {view.outcome.value.replace('_', ' ')}"
    if view.claims:
        claim = view.claims[0]
        label = claim.target.name or figures.metric_label(claim.target.metric)
        return plain(f"{name} {_amount(view)} {label}")
    helped = [trial for trial in view.proposed if trial.decision is Decision.PROMOTED and trial.confirm]
    if view.outcome is Outcome.IMPROVED and helped:
        verdict = account.best_confirmed(view, helped).confirm
        return f"{name} {figures.difference(view.metric, verdict.estimate if verdict else None)} {label}"
    return name if view.outcome is Outcome.BLOCKED or not view.trains else f"{name}, {trials}"


def _amount(view: StudyView) -> str:
    claim = view.claims[0]
    if is_absolute(claim.target):
        return figures.value(claim.target.metric, claim.estimate)
    if claim.target.relation == "ratio":
        return f"{claim.estimate:.3f} ×"
    return figures.difference(claim.target.metric, claim.estimate)


def told(view: StudyView) -> str:
    """What happened, in a line of its own beside the name: why it ended so, or what a person does."""
    command = how_on(view.id, view.standing)
    sentence = plain(account.outcome_sentence(view)).partition(": ")[2]
    return f"{command} goes on: {sentence}" if command else sentence


def note(view: StudyView, report: str) -> str:
    """A study's description: outcome, where its report is, what it cost, its telling trials."""
    shown = telling(view)
    left = len(view.proposed) - len(shown)
    lines = [
        plain(account.outcome_sentence(view)),
        "",
        f"{_link(view, report)}Cost: {account.cost_words(view)}.{_waiting(view.id, view.standing)}",
        "",
        f"> {markdown(view.goal)}",
        "",
        *(_trials(view) if shown else ["No trial was proposed."]),
        *(["", f"{left:,} more trials are in the report."] if left else []),
    ]
    return _fitting(lines)


def _link(view: StudyView, report: str) -> str:
    return f"[The whole report]({report}). " if view.outcome else ""


def _waiting(study: str, at: Standing) -> str:
    command = how_on(study, at)
    return f" It {_VERB[at]}: `{command}`." if command else ""


_VERB: Mapping[Standing, str] = {
    Standing.ANSWER: "needs an answer",
    Standing.APPROVAL: "needs approval",
    Standing.PAUSED: "is paused",
}


def _trials(view: StudyView) -> Iterator[str]:
    yield "| trial | change | dev value | difference [95 %] | verdict | time |"
    yield "|---:|---|---:|---:|---|---:|"
    for trial in telling(view):
        cells = (
            f"{trial.number}{' (winner)' if trial.number == view.winner else ''}",
            figures.change(trial.plan.change) if trial.plan else "–",
            figures.value(view.metric, trial.screen.value if trial.screen else None),
            account.estimate_words(view, trial),
            trial.decision.value if trial.decision else trial.status.lower(),
            figures.duration(trial.wall_s),
        )
        yield f"| {' | '.join(map(markdown, cells))} |"


def summary(rows: Sequence[StudySummary], views: Sequence[StudyView], pages: Mapping[str, str]) -> str:
    """The experiment's description: what waits for a person, how the newest study ended, then one line a study."""
    waiting = [row for row in rows if how_on(row.id, row.standing)]
    ended = next((view for view in views if view.outcome), None)
    newest = f" Newest: {headline(ended)} ({_time(ended)})." if ended else ""
    lines = [f"{_for_a_person(waiting)}{newest}", ""]
    lines += ["| | begun (UTC) | how it stands | time | goal |", "|---|---|---|---:|---|"]
    lines += [_row(view, pages) for view in views]
    return _fitting(lines)


def _for_a_person(waiting: Sequence[StudySummary]) -> str:
    if not waiting:
        return "Nothing waits for you."
    told = ", ".join(f"{row.id} {_VERB[row.standing]}" for row in waiting[:3])
    more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    return f"{len(waiting)} wait{'s' if len(waiting) == 1 else ''} for you: {told}{more}."


def _row(view: StudyView, pages: Mapping[str, str]) -> str:
    named = f"[{view.id}]({pages[view.id]})" if view.id in pages else view.id
    stands = markdown(headline(view).removeprefix(view.id).strip())
    command = how_on(view.id, view.standing)
    stands += f": `{command}`" if command else ""
    begun = f"{view.created_at:%m-%d %H:%M}"
    goal = plain(view.goal)
    short = goal if len(goal) <= 60 else f"{goal[:59]}…"
    return f"| {named} | {_unbroken(begun)} | {stands} | {_unbroken(_time(view))} | {markdown(short)} |"


def _unbroken(text: str) -> str:
    """MLflow's tables break at every blank."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _time(view: StudyView) -> str:
    return figures.duration(view.spent.active_s or None)


def _fitting(lines: Sequence[str]) -> str:
    """As many whole lines as MLflow takes."""
    text = ""
    for line in lines:
        if len(text) + len(line) >= ROOM:
            return f"{text}\n… (the rest: `nightsmith studies`)\n"
        text += f"{line}\n"
    return text
