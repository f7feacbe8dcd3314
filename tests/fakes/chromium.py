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
    "--virtual-time-budget=5000",
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


def laid_out(page: Path, width: int, scratch: Path, scheme: str = "light") -> dict[str, Any]:
    """How Chromium lays the page out in a frame of so many pixels."""
    wrapper = scratch / f"frame-{width}.html"
    wrapper.write_text(_MEASURE.format(url=page.as_uri(), width=width, scheme=scheme))
    command = [chromium(), *FLAGS, f"--user-data-dir={scratch / 'profile'}", "--dump-dom", wrapper.as_uri()]
    if scheme == "dark":
        command.insert(1, "--blink-settings=preferredColorScheme=0")
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    told = re.search(r"<body[^>]*>(\{.*\})</body>", done.stdout, re.DOTALL)
    assert told, f"Chromium said nothing: {done.stderr[-500:]}"
    return json.loads(html.unescape(told[1]))
