"""Four steps in a row, and two and two, under each layout: `torchrun every_plan.py FOLDER`, which holds spec.json.

Every layout is trained one after the other in one launch, because importing takes longer than training.
"""

import json
import os
import sys
from pathlib import Path

from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.trainer.attempt import Attempt
from nightsmith.trainer.journal import Journal
from nightsmith.trainer.pretrain import Pretraining
from nightsmith.trainer.spec import PretrainSpec
from nightsmith.trainer.text import Windows, read_tokens

PLANS = {
    "dp": ParallelPlan(dp=2),
    "dp+ep": ParallelPlan(dp=2, ep=2),
    "fsdp": ParallelPlan(fsdp=2),
    "fsdp+ep": ParallelPlan(fsdp=2, ep=2),
    "tp": ParallelPlan(tp=2),
}
"""Over two processes."""
WIDER = {
    "fsdp 4, ep 2": ParallelPlan(fsdp=4, ep=2),
    "fsdp 4": ParallelPlan(fsdp=4),
    "dp 4, ep 4": ParallelPlan(dp=4, ep=4),
}
"""Over four."""


def plans(spec: PretrainSpec, processes: int) -> dict[str, ParallelPlan]:
    """Layouts that the spec can have; Muon needs matrices whole."""
    known = PLANS if processes == 2 else WIDER
    return {name: plan for name, plan in known.items() if spec.optimizer == "adamw" or plan.fsdp * plan.tp == 1}


def train(spec: PretrainSpec, folder: Path, num_steps: int) -> tuple[list[float], str | None]:
    """Losses so far, and the digest of the weights (on rank 0), after going on to `num_steps`."""
    folder.mkdir(exist_ok=True)
    spec = spec.model_copy(update={"num_steps": num_steps})
    attempt = Attempt(folder, ("cpu:0",), Journal(folder / f"events-{os.environ['RANK']}.jsonl", 1), lambda: None)
    architecture, tokens = spec.architecture, read_tokens(Path(spec.data), spec.data_digest)
    training = Pretraining(attempt, spec, Windows(tokens, architecture.seq_len, architecture.batch_size, spec.seed))
    training.train()  # without leaving the others: one process group serves all layouts
    return training.losses, attempt.facts.checkpoint_digest


def main(folder: Path) -> None:
    """Run every layout on this rank; rank 0 writes what it found."""
    spec = PretrainSpec.model_validate_json((folder / "spec.json").read_bytes())
    found = {}
    for name, plan in plans(spec, int(os.environ["WORLD_SIZE"])).items():
        spread = spec.model_copy(update={"parallel": plan})
        straight = train(spread, folder / f"{name} straight", 4)
        train(spread, folder / f"{name} resumed", 2)
        found[name] = [straight, train(spread, folder / f"{name} resumed", 4)]
    if os.environ["RANK"] == "0":
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
