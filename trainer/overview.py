"""How MLflow's pages open: which runs, in which order, with which columns; and the addresses of those pages.

MLflow keeps such a choice as a *shared view*, a tag of the experiment that a page names in its address. Read in the
sources of MLflow 3.17's pages and looked at in a browser; a version that does not know the tag shows its own columns.
"""

import json
from typing import Any

VIEW = "nightsmith"
"""Name of the shared view."""
STUDIES_ONLY = "tags.`nightsmith.kind` = 'study'"
TOLD = "what happened"
"""Tag of a study's run; its name is the column's heading. MLflow cuts descriptions in the table at fifty characters."""
COLUMNS = {
    "attributes.`Run Name`": 250,
    "attributes.`Created`": 120,
    f"tags.`{TOLD}`": 560,
    "tags.`nightsmith.goal`": 320,
    "attributes.`Duration`": 80,
}
"""In order, with their width in pixels. The run's name tells study and outcome."""

_TRAINING = "workflowType=machine_learning"
"""An unvisited browser opens the pages for chat applications otherwise."""
_SEARCH: dict[str, Any] = {
    "searchFilter": STUDIES_ONLY,
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
}
_TABLE = {
    "selectedColumns": list(COLUMNS),
    "columnOrder": list(COLUMNS),  # without an order the widths are not applied
    "columnWidths": COLUMNS,
    "runsHiddenMode": "FIRST_10_RUNS",
    "autoRefreshEnabled": True,
}


def view_tags() -> dict[str, str]:
    """Tags of the experiment: the view, and that it holds training runs, not traces of a chat application."""
    return {
        f"mlflow.sharedViewState.{VIEW}": json.dumps(_SEARCH | _TABLE, sort_keys=True),
        "mlflow.experimentKind": "custom_model_development",
    }


def experiment_page(experiment: str) -> str:
    """Address of the studies, newest first, below the server's own."""
    return f"#/experiments/{experiment}/runs?{_TRAINING}&viewStateShareKey={VIEW}"


def run_page(experiment: str, run: str) -> str:
    """Address of one run."""
    return f"#/experiments/{experiment}/runs/{run}?{_TRAINING}"


def report_page(experiment: str, run: str) -> str:
    """Address of the report that is attached to a study's run."""
    return f"#/experiments/{experiment}/runs/{run}/artifacts/report/index.html?{_TRAINING}"
