"""Shared settings of the tests: doubles from tests/fakes, one thread per process."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NIGHTSMITH_WARM_IDLE_S", "20")  # what tests bring up leaves soon after the last one
sys.path.insert(0, str(Path(__file__).parent / "fakes"))
