"""Shared settings of the tests: doubles from tests/fakes, one thread per process."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "fakes"))
