"""Projects the truth into MLflow: the only writer there. MLflow is for looking; the judge never reads it (DESIGN §5).

One experiment a workspace, a parent run a study, a child run a job. Runs are found by the tag `nightsmith.key`, under a
lock, so that projecting again changes nothing and a crash in between is made good by the next call.
"""

import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlparse

from nightsmith.record.workspace import Workspace
from nightsmith.trainer import overview
from nightsmith.trainer.projection import MAX_TAG, Dataset, RunView, changed_results, job_views, short
from nightsmith.trainer.study_projection import study_key, study_view

EXPERIMENT = "nightsmith"
PROJECTED = "nightsmith.projection"
"""Tag with the digest of the view that was written last; set after everything else."""
DATABASE = "mlflow.db"
LOCK = "tracking"
"""Held while MLflow is open: two processes that make its tables at once would break them."""
LOCK_WAIT_S = 120.0
MAX_METRICS, MAX_PARAMS = 1000, 100
"""MLflow's limits for one batch."""
CLOCKS = ("study/wall_s", "curve/")
"""Figures that go on between a projection and a look at it, even of a study that has ended: not compared."""
LEDGER = ("study/cost", "study/gpu_hours", "study/cpu_s", "study/tokens")
"""Figures that go on as long as a study runs."""

NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's or experiment's description."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Difference:
    """A figure that MLflow shows otherwise than the truth has it."""

    key: str
    """The run's key; a study's parent run is `study-<id>`."""
    figure: str
    """Metric or tag."""
    truth: float | str | None
    """None: the truth has no such figure."""
    shown: float | str | None
    """None: MLflow does not show it."""


@dataclass(frozen=True)
class Pages:
    """Where MLflow shows the workspace's studies, as addresses below its server's own."""

    experiment: str
    """The studies, newest first."""
    studies: dict[str, str]
    """Study -> its parent run."""
    reports: dict[str, str]
    """Study -> the report attached to that run, once it is."""
    names: dict[str, str]
    """Study -> the run's name, as it stands there."""


def project(ws: Workspace, study: str) -> None:
    """Make MLflow show the study as the record and the result files have it. Twice is once, also from two processes."""
    with ws.lock(LOCK, wait_s=LOCK_WAIT_S):
        client = open_client(ws)
        experiment = _experiment(client, ws)
        present = {run.data.tags["nightsmith.key"]: run for run in find_runs(client, experiment, study)}
        parent = _write(client, experiment, study_view(ws, study), present, {})
        for view in job_views(ws, study):
            _write(client, experiment, view, present, {"mlflow.parentRunId": parent})


def attach_report(ws: Workspace, study: str, report: Path) -> None:
    """Copy a report (a file, or a folder) to the study's parent run as the artifact `report`."""
    project(ws, study)
    with ws.lock(LOCK, wait_s=LOCK_WAIT_S):
        client = open_client(ws)
        runs = find_runs(client, _experiment(client, ws), study)
        parent = next(run.info.run_id for run in runs if run.data.tags["nightsmith.key"] == study_key(study))
        if report.is_dir():
            client.log_artifacts(parent, str(report), artifact_path="report")
        else:
            client.log_artifact(parent, str(report), artifact_path="report")


def describe(ws: Workspace, study: str, *, name: str, told: str, note: str) -> None:
    """Name the study's parent run, tell it in a line and in Markdown. What stands there is not written again."""
    with ws.lock(LOCK, wait_s=LOCK_WAIT_S):
        client = open_client(ws)
        parent = _parents(client, _experiment(client, ws))[study]
        if parent.info.run_name != name:
            client.update_run(parent.info.run_id, name=name)
        for tag, value in short({overview.TOLD: told, NOTE: note}).items():
            if parent.data.tags.get(tag) != value:
                client.set_tag(parent.info.run_id, tag, value)


def summarise(ws: Workspace, note: str) -> None:
    """Describe the experiment in Markdown, and keep how its page opens."""
    with ws.lock(LOCK, wait_s=LOCK_WAIT_S):
        client = open_client(ws)
        experiment = client.get_experiment(_experiment(client, ws))
        for tag, value in ({NOTE: note[:MAX_TAG]} | overview.view_tags()).items():
            if experiment.tags.get(tag) != value:
                client.set_experiment_tag(experiment.experiment_id, tag, value)


def pages(ws: Workspace) -> Pages:
    """Addresses of what MLflow shows, below its server's own."""
    with ws.lock(LOCK, wait_s=LOCK_WAIT_S):
        client = open_client(ws)
        experiment = _experiment(client, ws)
        parents = _parents(client, experiment)
    return Pages(
        experiment=overview.experiment_page(experiment),
        studies={study: overview.run_page(experiment, run.info.run_id) for study, run in parents.items()},
        reports={study: overview.report_page(experiment, run.info.run_id) for study, run in parents.items()},
        names={study: run.info.run_name for study, run in parents.items()},
    )


def differences(ws: Workspace, study: str) -> list[Difference]:
    """Figures and tags that MLflow shows otherwise than the truth has them; empty is good."""
    runs = read_runs(ws, study)
    shown: dict[str, Any] = {run.data.tags["nightsmith.key"]: run for run in runs}
    views = [study_view(ws, study), *job_views(ws, study)]
    found = [difference for view in views for difference in _compared(view, shown.get(view.key))]
    found += [Difference(key, "result.json", "as recorded", "changed") for key in changed_results(ws, study)]
    surplus = Counter(run.data.tags["nightsmith.key"] for run in runs) - Counter(view.key for view in views)
    return [*found, *(Difference(key, "run", None, f"{count} too many") for key, count in sorted(surplus.items()))]


def read_runs(ws: Workspace, study: str) -> list[Any]:
    """The study's MLflow runs, oldest first; empty where nothing was projected yet."""
    if not (ws.root / DATABASE).is_file():
        return []
    with ws.lock(LOCK, wait_s=LOCK_WAIT_S):
        client = open_client(ws)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return list(find_runs(client, experiment.experiment_id, study)) if experiment else []


def registered(ws: Workspace) -> list[Path]:
    """Where the models lie that somebody registered in MLflow by the path of a folder."""
    if not (ws.root / DATABASE).is_file():
        return []
    with closing(sqlite3.connect(ws.root / DATABASE, timeout=20)) as db:
        if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'model_versions'").fetchone() is None:
            return []
        sources = [str(source) for (source,) in db.execute("SELECT source FROM model_versions WHERE source <> ''")]
    places = [urlparse(source) for source in sources]
    return [Path(unquote(place.path)) for place in places if place.scheme in ("", "file")]


def open_client(ws: Workspace) -> Any:
    """MLflow's client on the workspace's own database: offline, quiet, without telemetry, in WAL mode."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    try:
        return _client(ws)
    except Exception:  # tables that a kill left half made cannot be mended; without our experiment nothing is in them
        if _has_experiment(ws):
            raise
        _drop_tables(ws)
        return _client(ws)


def _drop_tables(ws: Workspace) -> None:
    """Empty MLflow's database where it lies: MLflow may keep connections to the file."""
    with closing(sqlite3.connect(ws.root / DATABASE, timeout=20)) as db, db:
        for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            if not name.startswith("sqlite_"):
                db.execute(f'DROP TABLE "{name}"')


def _has_experiment(ws: Workspace) -> bool:
    with closing(sqlite3.connect(ws.root / DATABASE, timeout=20)) as db:
        if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'experiments'").fetchone() is None:
            return False
        return db.execute("SELECT 1 FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone() is not None


def _client(ws: Workspace) -> Any:
    # MLflow leaves the journal mode at `delete`. In WAL its UI can read while a study writes, and its tables are made
    # in half the time: hence before the client, which makes them.
    with closing(sqlite3.connect(ws.root / DATABASE, timeout=20)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        _relocate(db, _artifacts(ws))
    from mlflow.tracking import MlflowClient  # 2 s: only the commands that look at MLflow pay for it

    for name in ("mlflow", "alembic"):  # after the import, which sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=ws.tracking_uri)


def _artifacts(ws: Workspace) -> str:
    return (ws.root / "artifacts").as_uri()


def _relocate(db: sqlite3.Connection, here: str) -> None:
    """MLflow keeps absolute places: in a workspace that was moved or copied it would write into the old one."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'experiments'").fetchone() is None:
        return
    found = db.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    if found is None or found[0] == here:
        return
    with db:
        db.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", (here, EXPERIMENT))
        moved = "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?"
        db.execute(moved, (here, len(found[0]) + 1, len(found[0]) + 1, f"{found[0]}/"))


def find_runs(client: Any, experiment: str, study: str) -> Iterator[Any]:
    """The study's runs, oldest first."""
    return _search(client, experiment, f"tags.`nightsmith.study` = '{study}'")


def _search(client: Any, experiment: str, query: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment],
            query,
            order_by=["attributes.start_time ASC"],
            max_results=1000,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _parents(client: Any, experiment: str) -> dict[str, Any]:
    """Study -> its parent run."""
    found = _search(client, experiment, overview.STUDIES_ONLY)
    return {run.data.tags["nightsmith.study"]: run for run in found}


def _experiment(client: Any, ws: Workspace) -> str:
    """The experiment's id. Its artifacts lie in the workspace: by default MLflow puts them into the current folder."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=_artifacts(ws)))


def _write(client: Any, experiment: str, view: RunView, present: dict[str, Any], links: dict[str, str]) -> str:
    """Write what the run lacks; returns its id."""
    run, digest = present.get(view.key), view.digest()
    run_id: str = run.info.run_id if run else _create(client, experiment, view, links)
    if run is not None and run.data.tags.get(PROJECTED) == digest:
        return run_id
    _log(client, run_id, view)
    known = {(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs} if run else set[tuple[str, str]]()
    _log_datasets(client, run_id, [each for each in view.datasets if (each.name, each.digest) not in known])
    if view.end_ms is None:
        client.update_run(run_id, status=view.status)
    else:
        client.set_terminated(run_id, view.status, view.end_ms)
    client.set_tag(run_id, PROJECTED, digest)
    return run_id


def _create(client: Any, experiment: str, view: RunView, links: dict[str, str]) -> str:
    tags = {"nightsmith.key": view.key, **view.tags, **links}
    run = client.create_run(experiment, start_time=view.start_ms, tags=tags, run_name=view.name)
    return str(run.info.run_id)


def _log(client: Any, run_id: str, view: RunView) -> None:
    from mlflow.entities import Metric, Param, RunTag

    for points in _chunks(view.points, MAX_METRICS):
        client.log_batch(run_id, metrics=[Metric(p.name, p.value, p.at_ms, p.step) for p in points])
    for params in _chunks(list(view.params.items()), MAX_PARAMS):
        client.log_batch(run_id, params=[Param(name, value) for name, value in params])
    for tags in _chunks(list(view.tags.items()), MAX_PARAMS):
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags])


def _log_datasets(client: Any, run_id: str, datasets: Sequence[Dataset]) -> None:
    if not datasets:
        return
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    inputs = [
        DatasetInput(
            DatasetEntity(each.name, each.digest, "code", CodeDatasetSource({"path": each.path}).to_json()),
            [InputTag("mlflow.data.context", each.context)],
        )
        for each in datasets
    ]
    client.log_inputs(run_id, inputs)


def _compared(view: RunView, run: Any) -> Iterator[Difference]:
    if run is None:
        if view.end_ms is not None:  # what still runs is projected when it ends
            yield Difference(view.key, "run", view.name, None)
        return
    truth, shown = view.figures(), dict[str, float](run.data.metrics)
    growing = CLOCKS if view.end_ms is not None else (*CLOCKS, *LEDGER)
    for name in sorted(truth.keys() | shown.keys()):
        if not name.startswith(growing) and truth.get(name) != shown.get(name):
            yield Difference(view.key, name, truth.get(name), shown.get(name))
    for name, value in view.tags.items():
        if run.data.tags.get(name) != value:
            yield Difference(view.key, name, value, run.data.tags.get(name))


def _chunks(values: Sequence[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk
