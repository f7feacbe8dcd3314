"""`nightsmith model plan`: seconds and peak memory of the whole command, by model. Bar: small4 on 8 GPUs within 3 s.

    python -m benchmarks model_plan [RUNS]

Each run is a process of its own; the median and the worst of RUNS (15) are printed, and whether torch was loaded.
"""

import os
import subprocess
import sys
import time
from statistics import median

REQUESTS = (("small4", "8"), ("nano", "1"), ("gpt-oss-120b", "64"), ("deepseek-v4-pro", "1024"))
LIMIT_S = 3.0
COMMAND = """
import sys
sys.argv = ["nightsmith", "model", "plan", *sys.argv[1:]]
from nightsmith.agent.cli import main
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def once(*arguments: str) -> tuple[float, float, bool]:
    """Seconds, MiB of the largest resident set, whether torch was loaded."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    told = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, told
    seconds = time.perf_counter() - begun
    return seconds, used.ru_maxrss / (1024 if sys.platform == "linux" else 2**20), "True" in told


def main() -> int:
    """Print the table; 1 where the median of small4 misses its bar."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"{runs} runs each")
    small4_s = 0.0
    for name, gpus in REQUESTS:
        rows = [once(name, "--gpus", gpus, "--json") for _ in range(runs)]
        seconds, peaks = [row[0] for row in rows], [row[1] for row in rows]
        small4_s = median(seconds) if name == "small4" else small4_s
        told = f"median {median(seconds):.2f} s, worst {max(seconds):.2f} s, peak {max(peaks):.0f} MiB"
        print(f"  {name:16} on {gpus:>4} GPUs: {told}, torch loaded: {any(row[2] for row in rows)}")
    print(f"small4: {small4_s:.2f} s of {LIMIT_S:.0f} s allowed")
    return int(small4_s > LIMIT_S)


if __name__ == "__main__":
    raise SystemExit(main())
