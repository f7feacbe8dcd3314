"""What tests of jobs share."""

from collections.abc import Iterator

import pytest
from zygote import Zygote


@pytest.fixture(scope="session")
def trl() -> Iterator[Zygote]:
    """Workers of the methods that TRL trains by, without the seconds of its import."""
    process = Zygote("sft", "dpo", "reward")
    yield process
    process.close()
