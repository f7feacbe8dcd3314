"""What a tool is: typed arguments in, a typed result out, or an error that says how to mend the call."""

from typing import Any

from pydantic import JsonValue

from nightsmith.record.digest import Contract
from nightsmith.record.errors import NightsmithError


class ToolArgs(Contract):
    """Base of every tool's arguments."""


class ToolCall(Contract):
    """One typed call in a plan."""

    tool: str
    """Name in the registry."""
    args: dict[str, Any]
    """Arguments, valid for that tool's ToolArgs."""


class ToolResult(Contract):
    """What a call gave: plain JSON, rendered by code only."""

    tool: str
    """Name in the registry."""
    value: JsonValue
    """The result."""


class ToolError(NightsmithError):
    """A call that can be mended: goes back to the planner, or to the person, as it is."""
