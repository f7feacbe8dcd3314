"""Where a job's model came from: the weights that it began with, and the job that had left them. Torch-free."""

from pathlib import Path

from nightsmith.record.digest import Contract
from nightsmith.trainer.runfolder import SPEC
from nightsmith.trainer.spec import PostTraining, PretrainSpec, RunSpec


class Origin(Contract):
    """What a job began with."""

    path: str
    """Folder of the model."""
    weights_digest: str
    """Digest of its weights."""
    job: str | None
    """Key of the job that left them; null: they came from elsewhere."""


def origin(spec: RunSpec) -> Origin | None:
    """What a job trains further, or evaluates; None for a training from random weights."""
    if isinstance(spec, PretrainSpec):
        return None
    if isinstance(spec, PostTraining):
        path, digest = spec.model.path, spec.model.weights_digest
    else:
        path, digest = spec.checkpoint, spec.checkpoint_digest
    return Origin(path=path, weights_digest=digest, job=job_of(Path(path)))


def job_of(model: Path) -> str | None:
    """Key of the job in whose run folder a model lies; None where it lies in none."""
    return model.parent.name if (model.parent / SPEC).is_file() else None
