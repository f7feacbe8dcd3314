"""kill -9 at random steps, again and again: losses, figures and final weights must be those of the undisturbed run.

    python -m benchmarks resume_exact [--kinds pretrain ranks sft dpo reward grpo] [--kills 10] [--steps 60] [--seed 0]

Real workers of one thread train a tiny Small 4 model and keep a checkpoint after every step. Each attempt is killed
once it has kept that of the next random step, or up to 20 ms later: also while a checkpoint is written. GRPO can be
resumed from where answers are drawn only, here every second step. `ranks` is pre-training on two processes.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))
import small_runs
from tiny_models import write_model
from zygote import Zygote

from nightsmith.trainer.spec import RunSpec

NOT_COMPARED = ("time/", "step_time", "router/")
"""Figures of the clock, and health of the experts since the journal's last line, which is written by the clock."""
SPECS: dict[str, Callable[[Path, Path], RunSpec]] = {
    "pretrain": lambda folder, _: small_runs.pretrain_spec(folder),
    "ranks": lambda folder, _: small_runs.pretrain_spec(folder, parallel={"fsdp": 2, "ep": 2}),
    "sft": lambda folder, model: small_runs.sft_spec(folder, model, adaptation="full", dev_suite=None),
    "dpo": lambda folder, model: small_runs.dpo_spec(folder, model),
    "reward": lambda folder, model: small_runs.reward_spec(folder, model),
    "grpo": lambda folder, model: small_runs.grpo_spec(folder, model, steps_per_generation=2, num_iterations=1),
}
"""Of each kind a small job on data in a folder, from a model folder; adapters for dpo and reward, else every weight."""


def facts(run_dir: Path, attempt: int) -> dict[str, Any]:
    """What must not depend on kills."""
    result = small_runs.end_of(run_dir, attempt)
    kept = {"initial": result.initial_digest, "weights": result.checkpoint_digest, "tokens": result.num_tokens}
    return kept | {"figures": _compared(result.metrics), "steps": _compared(steps(Path(str(result.checkpoint))))}


def _compared(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if not name.startswith(NOT_COMPARED)}


def steps(checkpoint: Path) -> dict[str, Any]:
    """Every step's loss, and the method's own figures."""
    if (checkpoint / "whole.json").is_file():
        progress = json.loads((checkpoint / "whole.json").read_text())
        return {"losses": progress["losses"], **progress["series"]}
    import torch

    return {"losses": torch.load(checkpoint / "trainer.pt", weights_only=True)["state"]["losses"]}


def disturbed(zygote: Zygote, run_dir: Path, spec: RunSpec, moments: list[int], draw: random.Random) -> dict[str, Any]:
    """The same job, killed at these steps."""
    small_runs.prepare(run_dir, spec, time_limit_s=600)
    for number, step in enumerate(moments, start=1):
        small_runs.kill_after(zygote, run_dir, number, step, later_s=draw.choice((0.0, draw.random() * 0.02)))
    last = len(moments) + 1
    assert zygote.run(run_dir, attempt=last) == 0, (run_dir / "log.txt").read_text()
    return facts(run_dir, last)


def compare(kind: str, folder: Path, args: argparse.Namespace) -> bool:
    """Run one kind undisturbed and disturbed; says what differs."""
    draw = random.Random(f"{args.seed}/{kind}")
    model = write_model(folder / "model", "small4")
    small = SPECS[kind](folder, model).model_copy(update={"num_steps": args.steps, "checkpoint_every_s": 1e-3})
    spec = type(small).model_validate(small.model_dump())
    zygote, began = Zygote(spec.kind), time.monotonic()
    try:
        assert zygote.run(small_runs.prepare(folder / "calm", spec, time_limit_s=600)) == 0
        calm = facts(folder / "calm", 1)
        moments = sorted(draw.sample(range(1, args.steps - 8), args.kills))
        torn = disturbed(zygote, folder / "torn", spec, moments, draw)
    finally:
        zygote.close()
    different = list(_different(calm, torn))
    told = f"differ: {', '.join(different)}" if different else "bit-equal"
    said = f"{len(calm['steps']['losses'])} losses, {len(calm['steps']) - 1} series"
    print(f"{kind:9} killed at steps {moments}: {told} ({said}; {time.monotonic() - began:.0f} s)", flush=True)
    return not different


def _different(calm: dict[str, Any], torn: dict[str, Any], within: str = "") -> Iterator[str]:
    """Names of what is not the same, a figure or series by its own."""
    for name in sorted({*calm, *torn}):
        one, other = calm.get(name), torn.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _different(one, other, f"{within}{name} ")
        elif one != other:
            yield f"{within}{name}"


def main() -> int:
    """Status 1 where a kind differs."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    equal = True
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as folder:
            equal &= compare(kind, Path(folder), args)
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
