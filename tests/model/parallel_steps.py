"""Three optimizer steps on one process or on a part of the ranks: `torchrun parallel_steps.py CHECKPOINT OUT`.

Every plan is run one after the other in one launch, because importing takes longer than training. Rank 0 writes, for
each plan, what `steps` gives.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from transformers.distributed import DistributedConfig

from nightsmith.model.health import take_use
from nightsmith.model.router import end_step, routers
from nightsmith.model.small4 import Small4ForCausalLM

PLANS: dict[str, dict[str, int]] = {
    "fsdp": {"fsdp_size": 2},
    "fsdp+ep": {"fsdp_size": 2, "ep_size": 2},
    "tp": {"tp_size": 2},
}
LENGTHS = (24, 17, 24, 9)
"""Tokens of the global batch's rows; what follows is padding. Ranks get unequal shares of them."""


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention mask of a step, (4, 24)."""
    tokens = torch.randint(0, 256, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(step))
    return tokens, (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()


def steps(model: Any, *, rank: int = 0, shares: int = 1) -> dict[str, Any]:
    """Loss, gradient norm and expert loads of each step, and the routers' biases at the end."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)
    losses, norms, loads = [], [], []
    for step in range(3):
        tokens, mask = batch(step)
        num_targets = int(mask[:, 1:].sum())
        mine = slice(rank * len(tokens) // shares, (rank + 1) * len(tokens) // shares)
        loss = summed_loss(model, tokens[mine], mask[mine]) * shares / num_targets
        loss.backward()
        losses.append(mean_over_ranks(loss.detach()) if shares > 1 else loss.item())
        norms.append(sum(whole(p.grad).square().sum().item() for p in model.parameters()) ** 0.5)
        optimizer.step()
        optimizer.zero_grad()
        end_step(model)
        loads.append([list(use.load) for use in take_use(model)])
    return {"loss": losses, "norm": norms, "loads": loads, "biases": [r.bias_E.tolist() for r in routers(model)]}


def summed_loss(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy summed over the tokens that are no padding."""
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    targets = tokens.masked_fill(mask == 0, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum")


def mean_over_ranks(value: Tensor) -> float:
    """The same on every rank."""
    dist.all_reduce(value)
    return value.item() / dist.get_world_size()


def whole(value: Tensor) -> Tensor:
    """A sharded tensor as one."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def main(checkpoint: str, out: Path) -> None:
    """Run every plan on this rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {}
    for name, plan in PLANS.items():
        model = Small4ForCausalLM.from_pretrained(checkpoint, distributed_config=DistributedConfig(**plan))
        shares = plan.get("fsdp_size", 1)
        results[name] = steps(model, rank=dist.get_rank() if shares > 1 else 0, shares=shares)
    if dist.get_rank() == 0:
        out.write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
