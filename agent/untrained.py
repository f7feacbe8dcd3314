"""Goals that train nothing: after the approval their data are built; then they end."""

import asyncio
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command

from nightsmith.agent import data_words, dossier
from nightsmith.agent.materials import manifest_of, prepare_data
from nightsmith.agent.services import Services
from nightsmith.agent.state import State
from nightsmith.evals.types import Outcome
from nightsmith.record import studies
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace

Go = Command[Any]


async def prepare(state: State, runtime: Runtime[Services]) -> Go:
    """Build the data; a refusal (too few rows, a file that cannot be read) ends the study, with what would mend it."""
    ws, study = runtime.context.ws, state["study"]
    if dossier.stop_requested(ws, study):
        return Command(goto="report", update={"ended": dossier.STOPPED})
    try:
        await asyncio.to_thread(prepare_data, ws, study, runtime.context.cwd)
    except NightsmithError as refusal:
        studies.set_state(ws, study, "blocked", {"reason": str(refusal)})
        return Command(goto="report", update={"ended": str(refusal)})
    return Command(goto="report")


def outcome(ws: Workspace, study: str, ended: str) -> tuple[Outcome, dict[str, Any]]:
    """How such a study ended, and the particulars for the report."""
    if ended or dossier.load(ws, study, "datasets") is None:
        return Outcome.STOPPED, {"reason": ended or dossier.STOPPED}
    return Outcome.DONE, {"reason": data_words.built(manifest_of(ws, study))}
