"""A night in which nothing is changed but the seed, through the whole product: nothing may be promoted.

    python benchmarks/seed_only_night.py [--trials 20] [--steps 40]

The planner is a double that proposes to repeat the recipe with another seed, again and again. So no trial is
better, so every promotion is a false one. At the declared level a night promotes something by chance in 2 % of cases.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))
import tiny_study
from tiny_study import GOAL

AGAIN = {"mv": "seed", "set": "seed", "dir": "tune", "why": "continue"}


def main() -> int:
    """Run the night; exit 1 where something was promoted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    goal = GOAL.replace("at most 2 trials", f"at most {args.trials} trials").replace("40 steps", f"{args.steps} steps")
    read = tiny_study.reading(goal, trials=args.trials, steps=args.steps)
    folder = Path(tempfile.mkdtemp(prefix="nightsmith-"))
    with tiny_study.bench(folder / "night", read, {"t": [AGAIN, AGAIN, AGAIN]}) as bench:
        ended = bench.run("run", goal, "--yes")
        view = bench.show()
    shutil.rmtree(folder)
    decisions = Counter(trial["decision"] for trial in view["trials"] if trial["number"] > 0)
    print(f"{sum(decisions.values())} trials: {dict(decisions)}; outcome {view['outcome']}, exit {ended.returncode}")
    print(f"{decisions['PROMOTED']} promotions")
    return int(decisions["PROMOTED"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
