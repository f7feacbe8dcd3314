"""Router replay: the experts that one pass chose, forced in another (arXiv:2510.11370).

In reinforcement learning the engine that samples and the model that is trained choose different experts for some
tokens; replaying the engine's choice in training takes that mismatch away. Weights are still the router's own, so its
gradient is kept.

L layers, T tokens, K top-k.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from nightsmith.model.router import routers
from nightsmith.record.errors import NightsmithError


@contextmanager
def recorded_routing(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that receives the expert ids (T, K) of each layer, in order, of each forward pass."""
    chosen: list[Tensor] = []
    with ExitStack() as hooks:
        for router in routers(model):
            hook = router.register_forward_hook(lambda _router, _inputs, output: chosen.append(output[2].detach()))
            hooks.callback(hook.remove)
        yield chosen


@contextmanager
def replayed_routing(model: nn.Module, ids_LTK: Sequence[Tensor]) -> Iterator[None]:
    """Route every forward pass to these expert ids; the backward pass belongs inside, too, under checkpointing.

    Raises:
        NightsmithError: not one (T, K) tensor of existing experts for each layer.
    """
    layers = list(routers(model))
    fits = len(ids_LTK) == len(layers) and all(
        ids.ndim == 2 and ids.shape[1] == router.top_k and int(ids.min()) >= 0 and int(ids.max()) < router.num_experts
        for ids, router in zip(ids_LTK, layers, strict=True)
    )
    if not fits:
        shapes = [tuple(ids.shape) for ids in ids_LTK]
        wanted = f"{len(layers)} tensors (T, {layers[0].top_k})" if layers else "a model with Small 4 routers"
        raise NightsmithError(f"Expert ids of shapes {shapes} cannot be replayed: give {wanted} of existing experts.")
    try:
        for router, ids_TK in zip(layers, ids_LTK, strict=True):
            router.forced_ids_TK = ids_TK
        yield
    finally:
        for router in layers:
            router.forced_ids_TK = None
