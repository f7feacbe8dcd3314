"""What tests of jobs share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import slurm_cluster
from zygote import Zygote


@pytest.fixture(scope="session")
def trl() -> Iterator[Zygote]:
    """Workers of the methods that TRL trains by, without the seconds of its import."""
    process = Zygote("sft", "dpo", "reward")
    yield process
    process.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The slurm.conf of a Slurm on loopback, whose commands work as long as the fixture lives."""
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as conf:
        yield conf
