"""Failures that a person (or the planner) can mend. Anything else is a bug and keeps its traceback.

NightsmithError          says what was given, what is allowed and how to mend it
├── Refused              a rule said no: budget, approval, device, seal
├── Busy                 another process holds what was asked for
└── Damaged              a file of the workspace cannot be trusted
"""

from typing import ClassVar


class NightsmithError(Exception):
    """An expected failure. Its text is shown as it is; `exit_code` is the command's exit status."""

    exit_code: ClassVar[int] = 2


class Refused(NightsmithError):
    """A rule of the record refused an action. The refusal is in the audit log."""

    exit_code: ClassVar[int] = 5


class NotApproved(Refused):
    """No approval that is still valid covers the action."""

    exit_code: ClassVar[int] = 6


class BudgetSpent(Refused):
    """The reservation does not fit into what is left of the budget."""


class NoDevice(Refused):
    """Not enough devices are free."""


class Busy(NightsmithError):
    """Another process holds the lock."""


class Damaged(NightsmithError):
    """A file of the workspace is damaged and was left as it is."""
