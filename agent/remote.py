"""What is said at every start where the planner is on another machine: goals are company data."""

import sys
from collections.abc import Callable

from nightsmith.agent.settings import Settings


def notice(settings: Settings) -> str:
    """One sentence that names the server; empty where the planner is on this machine."""
    url = settings.remote_planner()
    return f"The planner is not on this machine: goals, settings and results are sent to {url}." if url else ""


def say_remote(settings: Settings, say: Callable[[str], object] | None = None) -> None:
    """Say it, on standard error where no other way is given."""
    if told := notice(settings):
        (say or _on_standard_error)(told)


def _on_standard_error(text: str) -> None:
    print(f"nightsmith: {text}", file=sys.stderr)
