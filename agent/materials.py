"""What a study trains and judges on: its datasets, built once by the plan's calls, and the suites of its splits."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from nightsmith.agent import dossier
from nightsmith.agent.plan import StudyPlan
from nightsmith.evals.types import SuiteSpec
from nightsmith.record import events
from nightsmith.record.workspace import Workspace
from nightsmith.tools import registry
from nightsmith.tools.base import ToolCall
from nightsmith.tools.data.build import build_dataset
from nightsmith.tools.data.manifest import Manifest, read_manifest
from nightsmith.tools.data.plan import BuildDataset
from nightsmith.tools.evaluation import Evaluate, Split, answer_tokens, suite_of

DATASET = "$dataset"
"""Name, in a plan, of the dataset whose held-out rows judge: the first that is built."""

FOUND_BY = ("dedup", "length", "decontaminate", "without")
"""Steps whose rows say something of the data: duplicates, odd lengths, what leaks from held-out rows."""
SEALED_PER_DEV = 2
"""Items of the sealed split for each of dev: dev is looked at by every run, sealed once."""


def dataset_name(index: int) -> str:
    """Name, in a plan, of the dataset that its build call number `index` (from 0) makes."""
    return DATASET if index == 0 else f"{DATASET}{index + 1}"


def prepare_data(ws: Workspace, study: str, cwd: Path) -> None:
    """Build the plan's datasets (or find them built) and note their digests in the study's papers."""
    if dossier.load(ws, study, "datasets") is not None:
        return
    built: dict[str, str] = {}
    for call in dossier.study_plan(ws, study).calls:
        if call.tool == "build_dataset":
            manifest = build_dataset(_arguments(call, built), ws, cwd=cwd)
            built[dataset_name(len(built))] = manifest.dataset
            _say(ws, study, manifest)
    dossier.save(ws, study, "datasets", built)


def _arguments(call: ToolCall, built: dict[str, str]) -> BuildDataset:
    """The call's arguments, with digests for the names of datasets that were built before."""
    known = {"without": [built.get(name, name) for name in call.args["without"]]} if "without" in call.args else {}
    args = registry.validate(call.model_copy(update={"args": call.args | known}))
    assert isinstance(args, BuildDataset)
    return args


def _say(ws: Workspace, study: str, manifest: Manifest) -> None:
    rows: dict[str, JsonValue] = {split.name: split.rows for split in manifest.splits}
    events.append(ws, study, "data_built", data={"digest": manifest.name, "rows": rows})


def manifest_of(ws: Workspace, study: str, name: str = DATASET) -> Manifest:
    """The manifest of one of the study's datasets, by its name in the plan."""
    return read_manifest(ws, dossier.load(ws, study, "datasets")[name])


def findings(ws: Workspace, study: str, name: str = DATASET) -> tuple[str, ...]:
    """What a dataset's build found, in short words: how much there is, what each step took out, what was unreadable.

    Empty before it is built.
    """
    if name not in (dossier.load(ws, study, "datasets") or {}):
        return ()
    manifest = manifest_of(ws, study, name)
    train, unread = manifest.split("train"), sum(source.num_without_text for source in manifest.sources)
    taken_out = [
        f"{step.kind} took {step.rows_in - step.rows_out} of {step.rows_in}"
        for step in manifest.steps
        if step.kind in FOUND_BY and step.rows_out < step.rows_in
    ]
    longest = [f"longest {train.max_row_bytes}"] if train.max_row_bytes else []
    size = f"{train.rows} rows of {train.num_bytes // max(1, train.rows)} bytes"
    return (size, *longest, *taken_out, *([f"{unread} without text"] if unread else []))


def sealed_folds(manifest: Manifest) -> list[str]:
    """Digests of the sealed folds, in the order in which they are used."""
    return [split.data_digest for split in manifest.splits if split.name.startswith("fold")]


def suite(ws: Workspace, study: str, split: Split, fold: int = 0) -> SuiteSpec:
    """What the study evaluates on one split; the same for every run, whatever it trains."""
    manifest = manifest_of(ws, study)
    args = _sealed_evaluation(dossier.study_plan(ws, study))
    items = args.max_items if split == "sealed" else max(1, args.max_items // SEALED_PER_DEV)
    asked: dict[str, Any] = {
        "split": split,
        "fold": fold,
        "max_items": items,
        "max_new_tokens": answer_tokens(manifest),
    }
    return suite_of(args.model_copy(update=asked), manifest, ws)


def measured_suite(ws: Workspace, study: str) -> SuiteSpec:
    """What a study that trains nothing evaluates: all that its plan asks for."""
    manifest, args = manifest_of(ws, study), _sealed_evaluation(dossier.study_plan(ws, study))
    return suite_of(args.model_copy(update={"max_new_tokens": answer_tokens(manifest)}), manifest, ws)


def _sealed_evaluation(plan: StudyPlan) -> Evaluate:
    """Arguments of the plan's last evaluation: of the winner, on the sealed split, or of a model that is measured."""
    args = registry.validate([call for call in plan.calls if call.tool == "evaluate"][-1])
    assert isinstance(args, Evaluate)
    return args
