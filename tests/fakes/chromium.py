"""Pages in a real browser: headless Chromium lays them out, and says how wide they became."""

import html
import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
)  # fmt: skip
# A frame, since a window cannot be made as narrow as a telephone. What lies in a box that scrolls by itself is no
# overflow of the page.
_MEASURE = """<!doctype html><body style="margin:0"><iframe id="page" src="{url}" width="{width}" height="900"
style="border:0;color-scheme:{scheme}"></iframe><script>
document.getElementById("page").onload = (event) => {{
  const page = event.target.contentDocument, width = page.documentElement.clientWidth;
  const scrolls = (node) => node.closest(".wide-table, pre") !== null;
  const wide = [...page.body.querySelectorAll("*")].filter((node) =>
    node.getBoundingClientRect().right > width + 1 && node.getClientRects().length && !scrolls(node));
  document.body.textContent = JSON.stringify({{
    width, scrollWidth: page.documentElement.scrollWidth, height: page.documentElement.scrollHeight,
    wide: wide.slice(0, 5).map((node) => node.outerHTML.slice(0, 120)),
    hidden: [...page.querySelectorAll(".wide-table")].filter((box) => box.scrollWidth > box.clientWidth + 1).length,
    background: page.defaultView.getComputedStyle(page.body).backgroundColor,
  }});
}};
</script>"""


def chromium() -> str:
    """The browser's path; without one the test is skipped, and a warning says so at the end of the run."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        told = "NO PAGE WAS LOOKED AT IN A BROWSER: Chromium is absent (Debian: apt install chromium)."
        warnings.warn(told, stacklevel=2)
        pytest.skip(told)
    return found


def page(url: str, scratch: Path, *flags: str, virtual_s: int = 5) -> str:
    """The page as it stands once its scripts have had so many seconds of its own time."""
    profile, budget = f"--user-data-dir={scratch / 'profile'}", f"--virtual-time-budget={virtual_s * 1000}"
    command = [chromium(), *FLAGS, *flags, profile, budget, "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout, f"Chromium said nothing: {done.stderr[-500:]}"
    return done.stdout


def laid_out(file: Path, width: int, scratch: Path, scheme: str = "light") -> dict[str, Any]:
    """How Chromium lays the page out in a frame of so many pixels."""
    wrapper = scratch / f"frame-{width}.html"
    wrapper.write_text(_MEASURE.format(url=file.as_uri(), width=width, scheme=scheme))
    dark = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    dom = page(wrapper.as_uri(), scratch, *dark)
    told = re.search(r"<body[^>]*>(\{.*\})</body>", dom, re.DOTALL)
    assert told, f"The page was not measured: {dom[-500:]}"
    return json.loads(html.unescape(told[1]))
