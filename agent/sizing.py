"""Whether the runs of a plan fit into this machine's memory and onto its disk. Nothing is shrunk by itself."""

import math
from pathlib import Path

from nightsmith.agent.fitting import Blocked, Machine
from nightsmith.agent.looking import Look
from nightsmith.agent.plan import TRAINING, StudyPlan
from nightsmith.model.capacity.check import machine as share_of
from nightsmith.model.capacity.check import refusals
from nightsmith.model.capacity.families import known_shape, shape_of
from nightsmith.model.capacity.published import config_of
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.workload import Workload
from nightsmith.model.size import base_config
from nightsmith.tools import registry, training
from nightsmith.tools.base import ToolCall
from nightsmith.tools.finetuning import Sft, Tuning
from nightsmith.tools.preference import Dpo
from nightsmith.tools.reinforcement import Grpo
from nightsmith.tools.training import Pretrain
from nightsmith.trainer.sizing import LOGITS_CHUNK, on_cpu


def check_sizes(plan: StudyPlan, machine: Machine, look: Look, free_disk_bytes: int) -> None:
    """Raise Blocked where a run of the plan would not fit, with what would. Accelerators are not looked at yet."""
    if machine.gpus:
        return
    device = share_of(machine.memory_bytes, plan.parallel)
    shape: ModelShape | None = None
    for call in plan.calls:
        if call.tool not in TRAINING:
            continue
        args = registry.validate(call)
        if isinstance(args, Pretrain):
            shape = shape_of(config_of(training.architecture(args)), str(args.preset))
        elif shape is None and look.model.ref is not None:
            shape = known_shape(base_config(Path(look.model.ref.path)))
        if shape is None:
            continue
        found = refusals(shape, _workload(call, look), device, disk_bytes=free_disk_bytes, runs=plan.parallel)
        if found:
            raise Blocked(f"{call.tool} cannot be run here. {' '.join(each.text for each in found)}")


def _workload(call: ToolCall, look: Look) -> Workload:
    """How this version trains on a CPU: float32, nothing recomputed, all logits at once; rows as long as the data's."""
    args = registry.validate(call)
    if isinstance(args, Pretrain):
        shape = training.architecture(args)
        return on_cpu(micro_batch=shape.batch_size, seq_len=shape.seq_len)
    assert isinstance(args, Tuning)
    is_text = isinstance(args, Sft) and args.rows == "text"
    answers = args.num_generations if isinstance(args, Grpo) else 2 if isinstance(args, Dpo) else 1
    longest = max((look.tokens(data.longest_bytes) for data in look.data.values()), default=math.inf)
    length = args.max_len if is_text or longest <= 0 else int(min(args.max_len, longest))
    return on_cpu(
        micro_batch=args.batch_size * answers, seq_len=max(1, length), method=args.adaptation, lora_rank=args.lora_rank,
        lora_experts=True, logits_chunk=LOGITS_CHUNK if isinstance(args, Dpo) else None,
    )  # fmt: skip
