"""Adapters of a model that is spread over processes: experts' on the ranks that hold the experts, others on every rank.

FSDP looks after the weights that it was given, and adapters come later. So gradients of adapters on every rank are
averaged over the ranks whose batches differ; an expert's adapters, which have seen the tokens of all ranks, are scaled
as if they had been.
"""

# E experts, I and O inputs and outputs of an expert's stack, P rank of the adapters

from functools import partial
from typing import Any

import torch
from peft import get_peft_model_state_dict
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from nightsmith.model.router import data_parallel_groups
from nightsmith.model.split_lora import SplitLora


def spread_adapters(adapted: Any) -> None:
    """Keep a rank's own experts' adapters only, and make gradients those of the global batch. Alone: does nothing.

    Equal seeds on all ranks give the adapters of one process.
    """
    base = adapted.get_base_model()
    if getattr(base, "_mesh_manager", None) is None:
        return
    groups = data_parallel_groups(base)
    shares = 1
    for group in groups:
        shares *= group.size()
    own = [module for module in adapted.modules() if isinstance(module, SplitLora) and _mesh(module) is not None]
    for module in own:
        _keep_own(module)
    local = {weight for module in own for weight in _adapters(module)}
    for module in own:
        replicas = _mesh(module).get_group("efsdp")  # pyright: ignore[reportOptionalMemberAccess]
        for weight in _adapters(module):
            weight.register_hook(partial(_average, groups=(replicas,), shares=shares))
    for weight in adapted.parameters():
        if weight.requires_grad and weight not in local:
            weight.register_hook(partial(_average, groups=groups, shares=shares))


def whole_state(adapted: Any) -> dict[str, Tensor]:
    """The adapters in PEFT's form, those of all ranks' experts included; every rank has to call it."""
    state = get_peft_model_state_dict(adapted)
    for name, module in adapted.named_modules():
        if not isinstance(module, SplitLora) or (mesh := _mesh(module)) is None:
            continue
        group, num_experts = mesh.get_group("ep"), module.num_experts
        a_name, b_name = (f"{name}.lora_{side}.weight" for side in "AB")
        state[a_name] = torch.cat(_gather(state[a_name], group))
        parts = [part.unflatten(1, (-1, num_experts)) for part in _gather(state[b_name], group)]
        state[b_name] = torch.cat(parts, dim=-1).flatten(1)
    return state


def _mesh(module: SplitLora) -> DeviceMesh | None:
    """The mesh of a stack of experts under expert parallelism."""
    parallel = getattr(module.get_base_layer(), "_is_expert_parallel", False)
    return module.get_param().device_mesh if parallel else None


def _adapters(module: SplitLora) -> list[nn.Parameter]:
    sides: tuple[Any, Any] = module.lora_A, module.lora_B
    return [layer.weight for side in sides for layer in side.values()]


def _keep_own(module: SplitLora) -> None:
    """From the adapters of all experts to those of the rank's: A is (E x P, I), B is (O, P x E)."""
    mesh, everybodys = _mesh(module), module.num_experts
    assert mesh is not None
    num_experts = everybodys // mesh.get_group("ep").size()
    own = slice(mesh.get_local_rank("ep") * num_experts, (mesh.get_local_rank("ep") + 1) * num_experts)
    a: Any
    b: Any
    for a, b in zip(module.lora_A.values(), module.lora_B.values(), strict=True):
        a_EPI, b_OPE = a.weight.unflatten(0, (everybodys, -1)), b.weight.unflatten(1, (-1, everybodys))
        a.weight = nn.Parameter(a_EPI[own].detach().flatten(0, 1).clone(), a.weight.requires_grad)
        b.weight = nn.Parameter(b_OPE[..., own].detach().flatten(1).clone(), b.weight.requires_grad)
    module.num_experts = num_experts


def _average(gradient: Tensor, *, groups: tuple[dist.ProcessGroup, ...], shares: int) -> Tensor:
    total = gradient.clone()
    for group in groups:
        dist.all_reduce(total, group=group)
    return total.div_(shares)


def _gather(value: Tensor, group: dist.ProcessGroup) -> list[Tensor]:
    parts = [torch.empty_like(value) for _ in range(group.size())]
    dist.all_gather(parts, value.contiguous(), group=group)
    return parts
