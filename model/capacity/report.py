"""What `nightsmith model plan` answers. Every size is in bytes, every speed in tokens per second. Torch-free."""

from pydantic import Field

from nightsmith.model.capacity.devices import Device
from nightsmith.model.capacity.memory import Memory
from nightsmith.model.capacity.published import Counting
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.capacity.speed import Speed
from nightsmith.model.capacity.workload import Workload
from nightsmith.record.digest import Contract


class Parameters(Contract):
    """Parameters of a model."""

    total: int
    """All, with vision tower and projector where the published model has them."""
    text: int
    """Of the text model, which is what trains."""
    vision: int
    """Of vision tower and projector."""
    active: int
    """That a token passes, embedding and head included; of routed experts the chosen ones."""
    active_without_lookup: int
    """The same without the embedding, whose lookup multiplies nothing; the head counts, also one that is tied to it."""
    active_without_embeddings: int
    """The same without embedding and head."""
    parts: dict[str, int]
    """Of the text model, by part: embedding, head, attention, router, experts, shared_experts, mlp, norm."""


class Publication(Contract):
    """A publisher's figures beside the count."""

    total: str
    """Parameters in all, as published."""
    active: str
    """Active parameters, as published."""
    counting: Counting
    """Which of the counts of active parameters is the publisher's."""
    total_difference: float
    """Count over published figure, less one."""
    active_difference: float
    """The same for active parameters, in the publisher's counting."""
    total_rounds_to: bool
    """Whether the count, rounded to the published digits, is the published figure."""
    active_rounds_to: bool
    """The same for active parameters."""
    sources: tuple[str, ...]
    """Where config and figures are from."""


class Cache(Contract):
    """Keys and values kept when the model generates, in bf16."""

    bytes_per_token: float
    """Averaged over a sequence of the planned length."""
    bytes_per_sequence: int
    """Of a sequence of the planned length."""
    longest: int
    """Tokens of the longest sequence that the config names; 0: none."""
    bytes_per_longest: int
    """Of such a sequence."""


class Disk(Contract):
    """Files that the run writes."""

    model: int
    """Weights in the run's precision (bf16: 2 bytes for each parameter); of LoRA the adapter alone, in float32."""
    checkpoint: int
    """One checkpoint to go on from: trained weights with the optimizer's states."""
    kept: int
    """Two checkpoints, of which the older goes when a third is whole, and the model."""


class RankedPlan(ParallelPlan):
    """A layout, what it takes, and how fast it may be."""

    efsdp_ranks: int
    """Ranks that hold the same experts and split them."""
    params_per_rank: int
    """Parameters of the model on the fullest GPU, adapters left out."""
    parameter_bytes_per_rank: int
    """Their bytes in the run's precision, unquantised."""
    memory: Memory
    """Bytes on the fullest GPU."""
    fits: bool
    """Whether that is at most the usable memory."""
    headroom_bytes: int
    """Usable memory that is left; negative: what is lacking."""
    trains: bool
    """Whether this version's stack can train so; transformers' pipeline stages only run forward."""
    speed: Speed
    """To expect."""


class Alternative(Contract):
    """A change after which the run fits."""

    change: str
    """In words."""
    gpus: int
    """GPUs."""
    gpu: str
    """Which."""
    workload: Workload
    """Way to train."""
    plan: ParallelPlan
    """The layout that fits and is fastest."""
    needed_bytes: int
    """On the fullest GPU."""
    usable_bytes: int
    """Of each GPU."""
    command: str
    """That shows it."""


class Verdict(Contract):
    """Whether the run fits."""

    fits: bool
    """Whether a layout exists that fits and trains."""
    text: str
    """In words."""
    plan: ParallelPlan | None
    """The best layout; the one that lacks least where none fits."""
    needed_bytes: int
    """Of that layout, on the fullest GPU."""
    usable_bytes: int
    """Of each GPU."""
    longest_seq_len: int
    """Longest sequence (a power of two) that still fits, as it is; 0: none."""
    alternatives: tuple[Alternative, ...]
    """Changes after which it fits, the nearest first; empty where it fits."""


class Serving(Contract):
    """Inference on the same GPUs, each holding a share of the weights (tensor parallel)."""

    precision: str
    """Of the weights."""
    weights_bytes_per_gpu: int
    """Of each GPU."""
    cache_tokens: int
    """Tokens whose keys and values fit beside them, over all sequences, by the mean of the planned length; 0: none."""


class CapacityReport(Contract):
    """What a model takes."""

    name: str
    """Catalogue's name, or folder."""
    title: str
    """For a reader."""
    family: str
    """`model_type`."""
    params: Parameters
    """Counted."""
    published: Publication | None
    """Publisher's figures; null where there are none."""
    trained_params: int
    """That the optimizer changes."""
    flops_per_token: float
    """Operations to train on one token, recomputation left out."""
    forward_flops_per_token: float
    """Operations to read one token."""
    kv_cache: Cache
    """When it generates."""
    disk: Disk
    """When it trains."""
    workload: Workload
    """How it is trained."""
    device: Device
    """On what."""
    gpus: int = Field(gt=0)
    """How many."""
    gpus_per_node: int = Field(gt=0)
    """In one machine."""
    plans: tuple[RankedPlan, ...]
    """Every valid layout, the best first."""
    serving: tuple[Serving, ...]
    """When it serves."""
    verdict: Verdict
    """Whether it fits, and what would."""
    speed_basis: str
    """What speeds rest on."""
    notes: tuple[str, ...]
    """What a reader should know."""
