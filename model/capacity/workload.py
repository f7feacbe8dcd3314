"""What is to be done with a model: the settings that decide how much memory a run takes. Torch-free."""

from typing import Literal

from pydantic import Field

from nightsmith.record.digest import Contract

Method = Literal["full", "lora", "qlora"]
Optimizer = Literal["adamw", "adamw8bit"]
Precision = Literal["bf16", "fp32"]


class Workload(Contract):
    """A way to train."""

    method: Method = "full"
    """Every weight; low-rank adapters; low-rank adapters on a base quantised to 4 bits (NF4)."""
    optimizer: Optimizer = "adamw"
    """AdamW with float32 states, or with states of 8 bits."""
    precision: Precision = "bf16"
    """Numbers of weights and gradients. With bf16, AdamW keeps float32 master weights; its 8-bit form keeps none."""
    seq_len: int = Field(default=4096, gt=0)
    """Tokens of a sequence."""
    micro_batch: int = Field(default=1, gt=0)
    """Sequences that a GPU works on at once."""
    lora_rank: int = Field(default=16, gt=0)
    """Rank of the adapters."""
    lora_experts: bool = False
    """Whether routed experts carry adapters too; attention, shared experts and dense blocks always do."""
    recompute: bool = True
    """Whether only the input of each layer is kept, and the rest computed again in the backward pass."""
    logits_chunk: int | None = Field(default=1024, gt=0)
    """Tokens whose logits exist at once (chunked loss); null: those of the whole batch."""

    @property
    def tokens(self) -> int:
        """Tokens on a GPU at once."""
        return self.micro_batch * self.seq_len

    @property
    def value_bytes(self) -> int:
        """Bytes of a weight, a gradient or an activation."""
        return 2 if self.precision == "bf16" else 4

    @property
    def state_bytes(self) -> int:
        """Bytes that the optimizer keeps for each trained weight of the model."""
        if self.optimizer == "adamw8bit":
            return 2
        return 12 if self.precision == "bf16" else 8

    @property
    def adapter_state_bytes(self) -> int:
        """The same for adapters, which are float32 and need no master copy."""
        return 2 if self.optimizer == "adamw8bit" else 8
