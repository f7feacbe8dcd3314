"""Settings that the lower packages read too: the nearest nightsmith.toml; a NIGHTSMITH_* variable wins."""

import os
import tomllib
from pathlib import Path
from typing import Any

from nightsmith.record.errors import NightsmithError

FILE = "nightsmith.toml"


def find(start: Path | None = None) -> Path | None:
    """The nearest nightsmith.toml from `start` (default: the current directory) upwards, like .git."""
    folder = (start or Path.cwd()).absolute()
    return next((place / FILE for place in (folder, *folder.parents) if (place / FILE).is_file()), None)


def read(path: Path | None) -> dict[str, Any]:
    """What the file says; nothing where there is none. Raises NightsmithError where it is not TOML."""
    try:
        return tomllib.loads(path.read_text()) if path else {}
    except tomllib.TOMLDecodeError as error:
        raise NightsmithError(f"{path} is not valid TOML: {error}.") from None


def setting(name: str) -> Any:
    """One setting: the text of its variable, else what the file says, else None."""
    variable = os.environ.get(f"NIGHTSMITH_{name.upper()}")
    return read(find()).get(name) if variable is None else variable
