"""`python -m benchmarks` lists the benchmarks; `python -m benchmarks NAME …` runs one, after machine and commit."""

import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def machine() -> str:
    """Machine and commit, as every write-up names them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, commit {commit or 'unknown'}"


def main() -> int:
    """Run the named benchmark, or list them."""
    print(machine(), flush=True)
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        for name in NAMES:
            print(f"  {name:16} {(HERE / f'{name}.py').read_text().splitlines()[0].strip(chr(34))}")
        return 0
    sys.argv = sys.argv[1:]
    runpy.run_path(str(HERE / f"{sys.argv[0]}.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
