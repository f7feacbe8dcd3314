"""`nightsmith export`: a checkpoint as a folder that others can load and serve, with a card that says where it is from.

The folder is written beside its place and renamed there, so it is whole or absent.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nightsmith.agent import history
from nightsmith.agent.ancestry import ancestors
from nightsmith.agent.model_card import Subject, card, serve_command
from nightsmith.agent.opening import opened
from nightsmith.agent.side_by_side import own_figures
from nightsmith.agent.side_view import OwnFigures
from nightsmith.agent.view import JobView, StudyView
from nightsmith.evals.types import EvaluateSpec
from nightsmith.model.export import (
    FORMS,
    Exported,
    ExportFailed,
    ExportRequest,
    Form,
    export,
    understood,
)
from nightsmith.model.files import found_digest
from nightsmith.record.errors import Damaged
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobrows

CARD = "README.md"
_OF_A_MODEL = (CARD, "config.json", "adapter_config.json")
"""One of them is in every folder that `--force` may replace."""


def export_model(
    what: str,
    to: Path,
    workspace: Path | None,
    *,
    trial: int | None = None,
    form: str = FORMS[0],
    precision: str | None = None,
    force: bool = False,
    as_json: bool = False,
) -> int:
    """Export a study's winner or one of its trials, a job's checkpoint, or a model folder."""
    known_form, known_precision = understood(form, precision)
    to = to.expanduser().absolute()
    _require_free(to, force=force)
    source = _source(what, trial, workspace)
    descent = ancestors(source.checkpoint)
    _require_apart(to, [source.checkpoint, *(Path(ancestor.path) for ancestor in descent)])
    with staged(to) as folder:
        request = ExportRequest(
            checkpoint=str(source.checkpoint),
            folder=str(folder),
            form=known_form,
            precision=known_precision,
            name=to.name,
        )
        written = export(request)
        subject = Subject(to.name, known_form, written, ancestors=descent, **vars(source))
        (folder / CARD).write_text(card(subject), encoding="utf-8")
    _tell(to, written, known_form, as_json=as_json)
    return 0


@dataclass(frozen=True)
class _Source:
    """What is exported, and what is known of it."""

    checkpoint: Path
    view: StudyView | None = None
    job: JobView | None = None
    scored: tuple[OwnFigures, ...] = ()


def _source(what: str, trial: int | None, workspace: Path | None) -> _Source:
    folder = Path(what).expanduser()
    if folder.is_dir():
        if trial is not None:
            raise ExportFailed(f"--trial names a trial of a study, and {what} is a folder. Leave it out.")
        return _Source(folder.absolute())
    ws = opened(workspace)
    if re.fullmatch("[0-9a-f]{12}", what):
        view = history.load(ws, jobrows.get(ws, what).study)
        job = next(job for job in view.jobs if job.key == what)
    else:
        view = history.load(ws, what)
        job = chosen_job(view, trial)
    checkpoint = _verified(job)
    scored = (own_figures(ws, key) for key in (*_looks(ws, view, job), job.key))
    return _Source(checkpoint, view, job, tuple(split for split in scored if split is not None))


def _looks(ws: Workspace, view: StudyView, job: JobView) -> list[str]:
    """Jobs that evaluated this very checkpoint on the sealed split."""
    sealed = [jobrows.get(ws, other.key) for other in view.jobs if other.role == "sealed"]
    return [
        row.key
        for row in sealed
        if isinstance(row.spec, EvaluateSpec) and row.spec.checkpoint_digest == job.checkpoint_digest
    ]


def chosen_job(view: StudyView, trial: int | None) -> JobView:
    """The job whose checkpoint stands for a trial, by default for the winner. Raises ExportFailed."""
    kept = [job for job in view.jobs if job.checkpoint and job.role in ("trial", "baseline", "confirmation")]
    number = view.winner if trial is None else trial
    of_trial = [job for job in kept if job.trial == number]
    if number is None or not of_trial:
        there = ", ".join(str(number) for number in sorted({job.trial for job in kept if job.trial is not None}))
        lacks = f"has no winner yet ({view.state})" if number is None else f"has no checkpoint of trial {number}"
        raise ExportFailed(
            f"Study {view.id} {lacks}. " + (f"Name one with --trial: {there}." if there else "Nothing was trained.")
        )
    return next((job for job in of_trial if job.key == view.winner_key), of_trial[0])


def _verified(job: JobView) -> Path:
    """The job's checkpoint, unchanged since the job ended. Raises ExportFailed or Damaged."""
    if job.checkpoint is None:
        raise ExportFailed(f"Job {job.key} ({job.role}, {job.status}) left no checkpoint.")
    folder = Path(job.checkpoint)
    found = found_digest(folder)
    if found is None:
        raise ExportFailed(
            f"The checkpoint of job {job.key} is no longer at {folder}. `nightsmith gc` removes those that nothing "
            "needs; `nightsmith train` with the spec.json beside it trains it again."
        )
    if found != job.checkpoint_digest:
        raise Damaged(
            f"The weights in {folder} have the digest {found[:12]}; when job {job.key} ended it was "
            f"{str(job.checkpoint_digest)[:12]}. They were changed since, so no figure of the study is theirs."
        )
    return folder


def _require_free(to: Path, *, force: bool) -> None:
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise ExportFailed(f"{to} is there and is no folder. Give --to another place.")
    if not to.is_dir() or not any(to.iterdir()):
        return
    if not force:
        raise ExportFailed(f"{to} is there already. Give --to another place, or --force to replace it.")
    if not any((to / name).is_file() for name in _OF_A_MODEL):
        raise ExportFailed(
            f"{to} holds something else than a model, so --force does not replace it. Empty it yourself."
        )


def _require_apart(to: Path, sources: Sequence[Path]) -> None:
    """Refuse to write over what is exported, or over a model that it is made of."""
    place = to.resolve()
    for source in (path.resolve() for path in sources if path.is_absolute()):
        if place == source or place in source.parents or source in place.parents:
            raise ExportFailed(f"{to} and {source}, which is exported, lie in one another. Give --to another place.")


@contextmanager
def staged(to: Path) -> Generator[Path]:
    """A folder beside `to` that takes its place at the end; what was there stays until then, and when that fails."""
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        folder = aside / "new"
        folder.mkdir()
        yield folder
        for path in folder.iterdir():
            path.chmod(0o644)
            _flush(path)
        _flush(folder)
        if to.is_dir():
            to.rename(aside / "old")
        try:
            folder.rename(to)
        except OSError:
            if (aside / "old").is_dir():
                (aside / "old").rename(to)
            raise
        _flush(to.parent)
    except OSError as error:
        raise ExportFailed(f"{to} could not be written: {error}. What was there before is intact.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tell(to: Path, written: Exported, form: Form, *, as_json: bool) -> None:
    serve = serve_command(to, written, form)
    if as_json:
        print(json.dumps({"folder": str(to), "serve": serve} | written.model_dump(mode="json")))
        return
    size = sum(path.stat().st_size for path in to.iterdir())
    print(
        f"{to}: {written.model_type} with {written.num_parameters:,} parameters, {written.precision}, "
        f"{size / 1e6:,.1f} MB"
    )
    print(f"Card: {to / CARD}")
    print(f"Serve it: {serve}")
