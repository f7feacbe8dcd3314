"""Fields of a model's config.json, checked as they are read. Torch-free."""

from collections.abc import Mapping
from typing import Any

from nightsmith.record.errors import NightsmithError


class BadConfig(NightsmithError):
    """A config lacks a field or holds one of another kind; the text names it."""


class Fields:
    """A config with typed reading. Every method raises BadConfig."""

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self.content, self.where = content, where

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.content.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise BadConfig(self._wrong(name, value, "a positive whole number"))
        return value

    def either(self, *names: str) -> int:
        """A positive whole number under one of several names; versions of transformers differ in them."""
        return self.size(next((name for name in names if name in self.content), names[0]))

    def optional(self, name: str, default: int = 0) -> int:
        """A whole number that may be zero, null or absent."""
        value = self.content.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadConfig(self._wrong(name, value, "a whole number, not negative"))
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.content.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BadConfig(self._wrong(name, value, "true or false"))
        return value

    def items(self, name: str) -> tuple[Any, ...] | None:
        """A list, or None where it is absent."""
        value = self.content.get(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise BadConfig(self._wrong(name, value, "a list"))
        return tuple(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]

    def _wrong(self, name: str, value: object, wanted: str) -> str:
        found = "is absent" if name not in self.content else f"is {value!r}"
        return f"{self.where}: {name!r} {found}, but must be {wanted}. Restore the model's config.json."
