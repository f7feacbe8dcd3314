"""The processes of one run as the training loop sees them: who holds what, and how what they computed comes together.

Sharding is transformers' (FSDP2, expert and tensor parallelism on DTensor), but for `dp`, which leaves weights whole
and averages gradients in one message. Every layout takes the steps that one process takes on the whole batch. One
process is a mesh too, in which nothing is exchanged.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.distributed.expert_parallel import apply_expert_parallelism
from transformers.distributed.utils import TransformersDeviceMesh

from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.expert_ranks import ALL_GATHER, ALL_GATHER_MEAN


@dataclass(frozen=True)
class Part:
    """A parameter of the model, and what of it this rank holds: a plain tensor on the same memory.

    Optimizers work on parts: they compute with values at the same place only, and on plain tensors that is faster.
    """

    whole: nn.Parameter
    mine: Tensor

    def take_gradient(self) -> Tensor | None:
        """Give the part its gradient, and return that."""
        if self.mine is not self.whole:
            grad = self.whole.grad
            self.mine.grad = None if grad is None else self._laid_out(grad)
        return self.mine.grad

    def _laid_out(self, grad: Tensor) -> Tensor:
        """A gradient where its parameter is: tensor parallelism leaves some whole, or as terms of a sum."""
        assert isinstance(grad, DTensor)
        assert isinstance(self.whole, DTensor)
        if grad.placements != self.whole.placements:
            grad = grad.redistribute(self.whole.device_mesh, self.whole.placements)
        return local(grad)

    def gather(self, value: Tensor) -> Tensor:
        """A tensor shaped like the part, e.g. an optimizer's state, as one for the whole. Called on every rank."""
        whole = self.whole
        if not isinstance(whole, DTensor) or value.shape != self.mine.shape:
            return value
        sharded = DTensor.from_local(
            value, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
        )
        return sharded.full_tensor()

    def cut(self, value: Tensor) -> Tensor:
        """The reverse: this rank's part of a tensor for the whole, which every rank has."""
        whole = self.whole
        if not isinstance(whole, DTensor) or value.shape != whole.shape:
            return value
        return local(distribute_tensor(value, whole.device_mesh, whole.placements, src_data_rank=None))


class Mesh:
    """The processes of a run and this one's place among them."""

    def __init__(self, plan: ParallelPlan, device: torch.device) -> None:
        """Meet the other processes, as torchrun's environment says. `device`: where this one's tensors live."""
        self._plan, self.rank = plan, 0
        self._meshes: TransformersDeviceMesh | None = None
        if plan.world == 1:
            return
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.rank = dist.get_rank()
        names = ("pp", "dp_replicate", "fsdp", "tp"), ("pp", "dp_replicate", "efsdp", "ep")
        shapes = (1, plan.dp, plan.fsdp, plan.tp), (1, 1, plan.efsdp, plan.ep)
        dense, experts = (
            init_device_mesh(device.type, shape, mesh_dim_names=dims) for shape, dims in zip(shapes, names, strict=True)
        )
        self._meshes = TransformersDeviceMesh(dense, experts)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self._meshes is None

    def shard(self, model: Any) -> Any:
        """Keep this rank's part of a model that every rank has whole and alike."""
        if self._meshes is None:
            return model
        plan = self._plan
        exchange = ALL_GATHER if plan.tp == 1 and model.device.type == "cpu" else "auto"
        layout = DistributedConfig(fsdp_size=plan.shares, ep_size=plan.ep, tp_size=plan.tp, ep_implementation=exchange)
        if plan.dp > 1:
            return self._replicate(model, layout)
        model = type(model).maybe_distribute_model(model, layout, self._meshes)
        del model.config.distributed_config  # a property of this run, not of the model: checkpoints are of one kind
        return model

    def _replicate(self, model: Any, layout: DistributedConfig) -> Any:
        """Every weight on every rank, but for the experts of other ranks."""
        assert self._meshes is not None
        model._mesh_manager = self._meshes  # tells the routers over which ranks a batch is spread
        if self._plan.ep > 1:
            _, experts, _ = model._resolve_parallel_plans(layout)
            one, ep = self._meshes.get_mesh("tp"), self._meshes.get_mesh("ep")
            apply_expert_parallelism(model, ep, one, experts, ep_implementation=ALL_GATHER_MEAN)
        return model

    def rows(self, batch: Tensor) -> Tensor:
        """This rank's rows of a batch, (batch_size / shares, …); ranks that split matrices have the same ones."""
        each, place = len(batch) // self._plan.shares, self.rank // self._plan.tp
        return batch[place * each : (place + 1) * each]

    def share_gradients(self, parts: Iterable[Part]) -> None:
        """Give each part the gradient of the whole batch's loss, from those of the ranks' rows."""
        found = [(part, grad) for part in parts if (grad := part.take_gradient()) is not None]
        if self._plan.dp == 1:
            return  # FSDP has averaged in the backward pass
        everywhere = [grad for part, grad in found if part.mine is part.whole]
        flat = _flatten_dense_tensors(everywhere)
        dist.all_reduce(flat)
        flat /= self._plan.dp
        for grad, mean in zip(everywhere, _unflatten_dense_tensors(flat, everywhere), strict=True):
            grad.copy_(mean)

    def total_norm(self, parts: Iterable[Part]) -> Tensor:
        """Norm of the whole gradient; on every rank the square of it that `sum` would add up to the whole's."""
        found = [(part, part.mine.grad) for part in parts if part.mine.grad is not None]
        if self.is_alone:
            return nn.utils.get_total_norm([grad for _, grad in found])
        grads: dict[int, list[Tensor]] = defaultdict(list)
        for part, grad in found:
            grads[self._copies(part.whole)].append(grad)
        return torch.stack([nn.utils.get_total_norm(each).square() / copies for copies, each in grads.items()]).sum()

    def agree(self, loss: Tensor, norm: Tensor, *wishes: bool) -> tuple[float, float, list[bool]]:
        """What all ranks know alike of a step: mean loss, norm of the whole gradient, and what any of them wishes.

        Args:
            loss: of this rank's rows, a mean.
            norm: what `total_norm` gave.
            wishes: e.g. to end.
        """
        if self.is_alone:
            return loss.item(), norm.item(), list(wishes)
        told = torch.tensor([loss.item() / self._plan.world, norm.item(), *map(float, wishes)], dtype=torch.float64)
        told = told.to(loss.device)
        dist.all_reduce(told)
        mean, square, *asked = told.tolist()
        return mean, math.sqrt(square) if square >= 0 else math.nan, [bool(wish) for wish in asked]

    def leave(self) -> None:
        """Part from the other processes, once all have come so far. Nothing is exchanged afterwards."""
        if not self.is_alone:
            dist.barrier()
            dist.destroy_process_group()
            self._meshes = None

    def _copies(self, parameter: Tensor) -> int:
        """Ranks that hold the same values of a parameter."""
        if not isinstance(parameter, DTensor):
            return self._plan.world
        placed = zip(parameter.placements, range(parameter.device_mesh.ndim), strict=True)
        shards = math.prod(parameter.device_mesh.size(dim) for placement, dim in placed if not placement.is_replicate())
        return self._plan.world // shards


def parts_of(model: nn.Module) -> list[Part]:
    """The parts of a model's parameters that this rank holds, in their order."""
    return [
        Part(parameter, local(parameter.detach()) if isinstance(parameter, DTensor) else parameter)
        for parameter in model.parameters()
    ]


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by name, sharded or not, as whole ones. Called on every rank."""
    for name, value in tensors.items():
        yield name, value.full_tensor() if isinstance(value, DTensor) else value
