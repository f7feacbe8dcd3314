"""What is said at every start where the planner is on another machine: goals are company data."""

import sys

from nightsmith.agent.settings import Settings


def notice(settings: Settings) -> str:
    """One sentence that names the server; empty where the planner is on this machine."""
    url = settings.remote_planner()
    if url is None:
        return ""
    if settings.allow_remote_planner:
        return f"The planner is not on this machine: goals, settings and results are sent to {url}."
    return f"The planner at {url} is not on this machine and is not asked: allow_remote_planner = true is not set."


def say_remote(settings: Settings) -> None:
    """Say it on standard error. Where it is not allowed, the refusal says all there is to say."""
    if settings.allow_remote_planner and (told := notice(settings)):
        print(f"nightsmith: {told}", file=sys.stderr)
