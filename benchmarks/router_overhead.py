"""What balancing and the experts' health cost of a training step, each looked at after every step.

    python -m benchmarks router_overhead [--preset nano] [--windows 20]

CPU seconds of training steps on one thread, in interleaved windows; ratios to routers that neither count nor balance.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy import stats
from torch.nn import functional as F
from transformers.models.mistral4.modeling_mistral4 import Mistral4TopkRouter

from nightsmith.model.health import take_health
from nightsmith.model.presets import PRESETS
from nightsmith.model.router import end_step, routers
from nightsmith.model.small4 import build

STEPS = 8
"""Steps a window."""
ARMS: dict[str, dict[str, Any]] = {
    "unwatched": {},
    "transformers' router": {},
    "health": {},
    "health, aux": {"router_aux_loss_coef": 0.01},
    "health, aux and z": {"router_aux_loss_coef": 0.01, "router_z_loss_coef": 0.001},
    "health, bias": {"balance_mode": "bias"},
}


def trainer(arm: str, preset: str) -> Callable[[], None]:
    """One training step of an arm."""
    shape = PRESETS[preset]
    model: Any = build(shape, seed=0, **ARMS[arm]).train()
    if not arm.startswith("health"):
        model.model._forward_pre_hooks.clear()
        for router in routers(model):
            router.eval()
    if arm == "transformers' router":
        for layer in model.model.layers:
            stock = Mistral4TopkRouter(model.config)
            stock.load_state_dict(layer.mlp.gate.state_dict())
            layer.mlp.gate = stock
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, 256, (shape.batch_size, shape.seq_len), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        F.cross_entropy(model(ids, use_cache=False).logits.flatten(0, 1), ids.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if arm.startswith("health"):
            end_step(model)
            take_health(model)

    return step


def seconds(step: Callable[[], None]) -> float:
    """CPU seconds of a window."""
    started = time.process_time()
    for _ in range(STEPS):
        step()
    return time.process_time() - started


def main() -> int:
    """Print each arm's ratio with its 95 % interval."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--windows", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = {arm: trainer(arm, args.preset) for arm in ARMS}
    for step in steps.values():
        seconds(step)
    windows = [{arm: seconds(step) for arm, step in steps.items()} for _ in range(args.windows)]
    print(f"{args.preset}: {1e3 * min(each['unwatched'] for each in windows) / STEPS:.1f} ms a step, unwatched")
    for arm in list(ARMS)[1:]:
        logs = [math.log(each[arm] / each["unwatched"]) for each in windows]
        mean, half = sum(logs) / len(logs), stats.sem(logs) * stats.t.ppf(0.975, len(logs) - 1)
        low, high = (100 * math.expm1(mean + sign * half) for sign in (-1, 1))
        print(f"  {arm:22} {100 * math.expm1(mean):+6.2f} %  (95 % interval {low:+.2f} to {high:+.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
