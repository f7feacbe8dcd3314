"""Three steps of fine-tuning with adapters, on one process or a part of two: `torchrun parallel_lora.py MODEL OUT`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from parallel_steps import batch, mean_over_ranks, summed_loss
from torch import Tensor
from torch import distributed as dist
from transformers.distributed import DistributedConfig

from nightsmith.model.lora import add_adapters
from nightsmith.model.small4 import Small4ForCausalLM
from nightsmith.model.split_lora_ranks import whole_state


def steps(model: Any, *, rank: int = 0, shares: int = 1) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Loss and gradient norm of each step, and the adapters at the end in PEFT's form."""
    adapted = add_adapters(model, base=Path("base"), rank=4, alpha=8.0, seed=1).train()
    trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, foreach=False)
    losses, norms = [], []
    for step in range(3):
        tokens, mask = batch(step)
        mine = slice(rank * len(tokens) // shares, (rank + 1) * len(tokens) // shares)
        loss = summed_loss(adapted, tokens[mine], mask[mine]) * shares / int(mask[:, 1:].sum())
        loss.backward()
        losses.append(mean_over_ranks(loss.detach()) if shares > 1 else loss.item())
        norms.append(norm(trained, shares))
        optimizer.step()
        optimizer.zero_grad()
    return {"loss": losses, "norm": norms}, whole_state(adapted)


def norm(trained: dict[str, Tensor], shares: int) -> float:
    """Gradient norm over all adapters; those of experts are on one rank each."""
    squares = {name: weight.grad.square().sum() for name, weight in trained.items()}
    routed = torch.stack([square for name, square in squares.items() if ".experts." in name]).sum()
    if shares > 1:
        dist.all_reduce(routed)
    return (routed + sum(square for name, square in squares.items() if ".experts." not in name)).sqrt().item()


def main(checkpoint: str, out: Path) -> None:
    """Run this rank's part under FSDP2 and expert parallelism."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    plan = DistributedConfig(fsdp_size=2, ep_size=2)
    model = Small4ForCausalLM.from_pretrained(checkpoint, distributed_config=plan)
    found, state = steps(model, rank=dist.get_rank(), shares=2)
    if dist.get_rank() == 0:
        out.write_text(json.dumps({**found, "state": {name: value.tolist() for name, value in state.items()}}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
