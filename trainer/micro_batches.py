"""How a job that ran out of memory is started again: its steps' batches in smaller parts, one after the other.

The effective batch, the data order and what a trial claims stay as they are: the parts belong to the start, not to the
spec. Gradients are those of the whole batch up to the order in which they are summed. Torch-free.
"""

from nightsmith.trainer.jobrows import JobRow
from nightsmith.trainer.post_training import DpoSpec, RewardSpec, SftSpec
from nightsmith.trainer.spec import PretrainSpec, RunSpec, RunStatus


def for_next_start(row: JobRow | None) -> int | None:
    """Rows of a micro-batch in the next start of a job; null: whole batches."""
    if row is None:
        return None
    return halved(row) if row.state == RunStatus.OUT_OF_MEMORY else row.launch.micro_batch_size


def halved(row: JobRow) -> int | None:
    """The largest even part of a batch that is at most half of what ran out of memory; None where there is none."""
    whole = _batch_size(row.spec)
    if whole is None or row.launch.processes > 1:
        return None
    present = row.launch.micro_batch_size or whole
    return max((size for size in range(1, present // 2 + 1) if whole % size == 0), default=None)


def _batch_size(spec: RunSpec) -> int | None:
    """Rows of an optimizer step, where it can be computed in parts."""
    if isinstance(spec, PretrainSpec):
        return spec.architecture.batch_size
    if isinstance(spec, SftSpec | DpoSpec | RewardSpec) and spec.backend == "trl":
        return spec.batch_size
    return None
