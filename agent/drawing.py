"""Tables and paragraphs in the terminal, for 80 columns and more; colour only where a terminal shows it.

Strangers' words pass through `escape.plain` into `Text` objects, so that neither terminal codes nor rich's own markup
in them do anything. rich is imported when something is drawn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nightsmith.agent.escape import plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_WIDEST = 120
"""Columns beyond which lines are only harder to read."""


def table(*columns: str) -> "Table":
    """A table without frame; `>` before a name aligns the column to the right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return made


def hung(line: "Text", indent: int) -> "Table":
    """A line that goes on under its own beginning: its first columns stand alone."""
    from rich.table import Table

    made = Table.grid()
    made.add_row(*line.divide([indent]))
    return made


def pairs(rows: Sequence[tuple[str, str]]) -> "Table":
    """Names and what belongs to them."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    for name, value in rows:
        made.add_row(text(name, style="dim"), text(value))
    return made


def text(content: str, style: str = "") -> "Text":
    """Words as they are, whatever they hold."""
    from rich.text import Text

    return Text(plain(content), style=style)


def drawn(*parts: "RenderableType", wrap: bool = True) -> str:
    """Parts one below the other. No line ends in blanks."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if console.width > _WIDEST:
        console = Console(highlight=False, markup=False, emoji=False, width=_WIDEST)
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=not wrap)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))
