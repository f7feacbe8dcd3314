"""Text by strangers (goals, hypotheses, reasons) stays text: in terminals, HTML and Markdown."""

import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories that steer a terminal or a reading direction instead of showing a character."""
_MARKDOWN = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "|": "&#124;",
        **{mark: f"\\{mark}" for mark in "\\`*_[]~$"},
    }
)
_BLOCK_START = re.compile(r"^(#{1,6}(?=\s|$)|[-+](?=\s|$)|-(?=-)|=|\d{1,9}(?=[.)](?:\s|$)))")
_AUTOLINK = re.compile(r"(?i)(?<=http):|(?<=https):|(?<=ftp):|(?<=mailto):|(?<=xmpp):|(?<=www)\.|@")


def plain(text: str) -> str:
    """One line of visible characters: white space collapsed, control and direction characters removed."""
    if text.isprintable():  # then nothing is hidden in it: most text, and fifty times as fast
        return " ".join(text.split())
    spaced = "".join(" " if char.isspace() else char for char in text)
    visible = "".join(char for char in spaced if unicodedata.category(char) not in _HIDDEN)
    return " ".join(visible.split())


def visible(line: str) -> str:
    """A line without control and direction characters; its spaces stay, so that columns stay aligned."""
    spaced = "".join(" " if char.isspace() else char for char in line)
    return "".join(char for char in spaced if unicodedata.category(char) not in _HIDDEN).rstrip()


def markdown(text: str) -> str:
    """`plain` text that no Markdown reader takes for markup, a table border, a link or a block."""
    escaped = plain(text).translate(_MARKDOWN)
    return _BLOCK_START.sub(_escape_start, _AUTOLINK.sub(_escape_link, escaped))


def fenced(text: str, language: str = "") -> str:
    """A Markdown code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """A Markdown code span of `plain` text, also where the text holds backticks."""
    shown = plain(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def _escape_start(match: re.Match[str]) -> str:
    found = match.group(0)
    return f"&#{ord(found[0])};{found[1:]}"


def _escape_link(match: re.Match[str]) -> str:
    """Replace the last character by its entity."""
    found = match.group(0)
    return f"{found[:-1]}&#{ord(found[-1])};"
