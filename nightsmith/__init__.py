"""Nightsmith: English goals in, judged training experiments out.

The six packages are top-level folders of the checkout; the links beside this file give them their import names
(docs/adr/0001). Where a checkout lost its links, the packages are found in the folder above.
"""

from pathlib import Path

__version__ = "0.1.0"

_here = Path(__file__).resolve().parent
if not (_here / "agent").is_dir():
    __path__.append(str(_here.parent))
