"""The `night` commands. Everything heavy is imported inside the command that uses it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

night_app = typer.Typer(help="Goals that are pursued by the clock, with nobody at the keyboard.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the schedule, as `nightsmith night list` shows it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", help="Approve it for every night beforehand.")]
Days = Annotated[int, typer.Option("--valid-days", help="Days for which the approval holds.", min=1, max=3660)]
Workspace_ = Annotated[Path | None, typer.Option("--workspace", help="The .nightsmith folder; else found upwards.")]


@night_app.command()
def add(
    goal: Annotated[str, typer.Argument(help='The goal of each night, in English; "-" reads standard input.')],
    at: Annotated[str | None, typer.Option(help="Start, HH:MM; else the time that the goal names.")] = None,
    days: Annotated[str | None, typer.Option(help="mon-fri, sat,sun, daily (the default), weekdays, …")] = None,
    until: Annotated[str | None, typer.Option(help="HH:MM by which a night has ended, report included.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget a night: '5 trials, 8h', or trials=5,time=8h,gpu_hours=40,tokens=2M.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name; else night1, night2, …")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA name, e.g. Europe/Paris; else the machine's.")] = None,
    valid_days: Days = 90,
    catch_up: Annotated[
        bool,
        typer.Option("--catch-up/--no-catch-up", help="Run once, later, what was missed with the machine off."),
    ] = True,
    answer: Annotated[list[str] | None, typer.Option(help="Answer to a question; repeat for more.")] = None,
    yes: Yes = False,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Schedule a goal: read and planned once, approved once for every night, within that envelope.

    Exit status: 0 scheduled; 4 the goal needs answers; 5 blocked; 6 not approved; 2 wrong usage.
    """
    from nightsmith.agent import night_add

    asked = night_add.Asked(
        at=at, days=days, until=until, budget=budget, name=name, timezone=timezone, valid_days=valid_days,
        catch_up=catch_up, answers=answer or [],
    )  # fmt: skip
    raise typer.Exit(night_add.add(_text(goal), asked, workspace, yes=yes, as_json=as_json))


@night_app.command("list")
def listing(as_json: Json = False, workspace: Workspace_ = None) -> None:
    """All schedules: when, the next and the last night, until when they are approved."""
    from nightsmith.agent import night

    raise typer.Exit(night.listing(workspace, as_json=as_json))


@night_app.command()
def show(name: Name, as_json: Json = False, workspace: Workspace_ = None) -> None:
    """One schedule, what is approved for it, and its last nights."""
    from nightsmith.agent import night

    raise typer.Exit(night.show(name, workspace, as_json=as_json))


@night_app.command()
def renew(
    name: Name, valid_days: Days = 90, yes: Yes = False, as_json: Json = False, workspace: Workspace_ = None
) -> None:
    """Approve a schedule anew, e.g. when its approval has expired."""
    from nightsmith.agent import night_add

    raise typer.Exit(night_add.renew(name, workspace, valid_days=valid_days, yes=yes, as_json=as_json))


@night_app.command()
def remove(name: Name, workspace: Workspace_ = None) -> None:
    """Take a schedule out and withdraw its approval. Its history stays."""
    from nightsmith.agent import night

    raise typer.Exit(night.remove(name, workspace))


@night_app.command()
def run(
    name: Annotated[str | None, typer.Argument(help="One schedule; else all of them, in turn.")] = None,
    forced: Annotated[bool, typer.Option("--now", help="Run a night now, due or not, for the length of one.")] = False,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Run what is due. This is what the timers call; calling it too often does no harm.

    Exit status, the gravest of several: 0 all done, nothing due, or another process runs it; 3 a study ended without
    what its goal asks for; 5 blocked; 6 something waits for a person; 130 interrupted (it goes on at the next start);
    2 wrong usage; 1 a bug.
    """
    from nightsmith.agent import night_session

    raise typer.Exit(night_session.run(name, workspace, forced=forced, as_json=as_json))


@night_app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="One schedule; else all.")] = None,
    last: Annotated[int, typer.Option(help="How many nights.", min=1)] = 14,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """What became of each night: study, outcome in a sentence, cost, report."""
    from nightsmith.agent import night

    raise typer.Exit(night.history(name, workspace, last=last, as_json=as_json))


@night_app.command()
def install(
    printed: Annotated[bool, typer.Option("--print", help="Show what would be installed; change nothing.")] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="Timers of systemd's user manager.")] = False,
    cron: Annotated[bool, typer.Option("--cron", help="A block in the crontab.")] = False,
    workspace: Workspace_ = None,
) -> None:
    """Let systemd (else cron) call `night run` for every schedule. Again after a change: brings it up to date."""
    from nightsmith.agent import night_install

    if systemd and cron:
        raise typer.BadParameter("Give --systemd or --cron, not both.")
    kind = "systemd" if systemd else "cron" if cron else None
    raise typer.Exit(night_install.install(workspace, kind=kind, printed=printed))


@night_app.command()
def uninstall(workspace: Workspace_ = None) -> None:
    """Take out exactly what `night install` put into place. Schedules stay."""
    from nightsmith.agent import night_install

    raise typer.Exit(night_install.uninstall(workspace))


def _text(goal: str) -> str:
    text = sys.stdin.read() if goal == "-" else goal
    if not text.strip():
        raise typer.BadParameter("The goal is empty. Say what to train on what data until which figure is reached.")
    return text.strip()
