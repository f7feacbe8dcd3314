"""Small 4's layers one after the other, without what transformers prepares for models of other kinds.

Whole windows need no mask to be built or checked, and no outputs of inner layers to be caught.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import MoeModelOutputWithPast
from transformers.models.mistral4.modeling_mistral4 import Mistral4Model
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

INNER_OUTPUTS = ("output_hidden_states", "output_attentions", "output_router_logits")


class LeanModel(Mistral4Model):
    """Mistral4Model for ids of whole windows, each token seeing those before it or what a (B, 1, L, L) mask says."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Any = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """(B, L) -> (B, L, D), as Mistral4Model's."""
        if input_ids is None or not self._is_plain(attention_mask, kwargs):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        hidden_BLD = self.embed_tokens(input_ids)
        positions_1L = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        rotation = self.rotary_emb(hidden_BLD, positions_1L)
        for layer in self.layers:
            hidden_BLD = layer(
                hidden_BLD, position_embeddings=rotation, attention_mask=attention_mask, position_ids=positions_1L
            )
        return MoeModelOutputWithPast(last_hidden_state=self.norm(hidden_BLD))

    def _is_plain(self, attention_mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
        asked = {name for name, value in kwargs.items() if value not in (None, False)}
        return (
            (attention_mask is None or attention_mask.ndim == 4)
            and not asked
            and not any(getattr(self.config, name, False) for name in INNER_OUTPUTS)
        )


# transformers knows by the name of a class which inner outputs it can catch.
dict.__setitem__(_CAN_RECORD_REGISTRY, str(LeanModel), Mistral4Model._can_record_outputs)
