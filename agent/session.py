"""What the commands do: open the workspace, drive or watch a study, print what was asked for."""

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nightsmith.agent import dossier, render, understand
from nightsmith.agent.desk import FlagDesk, desk
from nightsmith.agent.external_recipe import require_trainer
from nightsmith.agent.looking import blind
from nightsmith.agent.opening import existing, opened
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.planner import Interpretation, Planner
from nightsmith.agent.planning import Machine, study_plan
from nightsmith.agent.preflight import preflight
from nightsmith.agent.remote import say_remote
from nightsmith.agent.services import Services
from nightsmith.agent.settings import load_settings
from nightsmith.agent.standing import is_driven
from nightsmith.agent.study import Driver, Ending, Held, exit_code
from nightsmith.record import approvals, budget, events, leases, studies
from nightsmith.record.approvals import Envelope
from nightsmith.record.budget import Budget
from nightsmith.record.errors import NightsmithError
from nightsmith.record.workspace import Workspace
from nightsmith.trainer import jobs
from nightsmith.trainer.spec import RunSpec, RunStatus

MANUAL = "manual"
"""Account of jobs that are started without a study."""


def run(goal: str, path: Path | None, *, yes: bool, as_json: bool) -> int:
    """Make a study of the goal and drive it."""
    ws = opened(path)
    study = studies.create(ws, goal)
    dossier.save(ws, study, "folder", str(Path.cwd()))
    events.append(ws, study, "study_started", data={"goal": goal})
    return _drive(ws, study, desk(ws, yes=yes, as_json=as_json, answers=[]))


def resume(study: str, path: Path | None, *, answers: list[str], yes: bool, as_json: bool) -> int:
    """Drive a study on from where it stands; while somebody else does, watch."""
    ws = existing(path)
    studies.get(ws, study)  # says which studies there are
    front = desk(ws, yes=yes, as_json=as_json, answers=answers)
    if yes:
        understand.renew(ws, study)
    try:
        return _drive(ws, study, front)
    except Held as held:
        print(f"nightsmith: {held} Watching only.", file=sys.stderr)
        return _watch(ws, study, front)


def _drive(ws: Workspace, study: str, front: FlagDesk) -> int:
    say_remote(load_settings())
    services = Services(ws=ws, planner=_planner, cwd=Path(dossier.load(ws, study, "folder") or Path.cwd()))
    last = events.read(ws, study=study)
    driver = Driver(services, study, front, seen=last[-1].seq if last and len(last) > 1 else 0)
    try:
        ending = asyncio.run(driver.drive())
    except Held:
        raise
    except NightsmithError:
        print(f"nightsmith: {study} is paused; `nightsmith resume {study}` goes on.", file=sys.stderr)
        raise
    code = exit_code(ws, study, ending)
    if front.as_json:
        print(json.dumps({"kind": "ending", "study": study, "ending": ending, "exit_status": code}))
    else:
        print(render.ending(ws, study, ending), file=sys.stderr if ending is not Ending.DONE else sys.stdout)
    return code


def _planner() -> Planner:
    return Planner(load_settings().backend())


def _watch(ws: Workspace, study: str, front: FlagDesk) -> int:
    """Follow the events of a study that another process drives. Reads only."""
    seen = 0
    while (row := studies.get(ws, study)).outcome is None:
        for event in events.read(ws, study=study, after=seen):
            seen = event.seq
            front.show(event)
        time.sleep(0.5)
        if not is_driven(ws, study) and studies.get(ws, study).outcome is None:
            print(f"Nobody drives {study} any more: `nightsmith resume {study}` goes on.", file=sys.stderr)
            return exit_code(ws, study, Ending.INTERRUPTED)
    print(f"{study} ended: {row.outcome}.", file=sys.stderr)
    return exit_code(ws, study, Ending.DONE)


def stop(study: str, path: Path | None) -> int:
    """Ask for the end; where nobody drives the study, bring it to its end here."""
    ws = existing(path)
    if studies.get(ws, study).outcome is not None:
        print(f"{study} has ended already: {studies.get(ws, study).outcome}.")
        return 0
    dossier.request_stop(ws, study)
    try:
        code = _drive(ws, study, FlagDesk(ws))
    except Held:
        print(f"Asked {study} to stop: its jobs save a checkpoint, then it is judged and reported.")
        return 0
    return 0 if studies.get(ws, study).outcome is not None else code


def plan(text: str | None, batch: Path | None, path: Path | None, *, check: bool, as_json: bool) -> int:
    """Interpret goals without starting anything. Exit status 0 ready, 4 needs answers, 5 blocked (batch: 0)."""
    say_remote(load_settings())
    planner = _planner()
    if batch is not None:
        for line in _batch_lines(batch):
            answer = asyncio.run(planner.interpret(line["goal"]))
            print(json.dumps({"id": line["id"], **_planned(answer, path, check=False)[0]}), flush=True)
        return 0
    reading = asyncio.run(planner.interpret(text or ""))
    answer, drawn = _planned(reading, path, check=check)
    shown = render.planned(answer, drawn, "Understood: ready") if drawn else render.interpretation(answer)
    print(json.dumps(answer, indent=1) if as_json else shown)
    return {"ready": 0, "needs_answers": 4, "blocked": 5}[answer["status"]]


def _batch_lines(batch: Path) -> list[dict[str, str]]:
    lines: list[dict[str, str]] = []
    for number, line in enumerate(_read(batch).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            lines.append({"id": row["id"], "goal": row["goal"]})
        except (ValueError, KeyError, TypeError):
            raise NightsmithError(
                f'{batch}:{number}: needs {{"id": …, "goal": …}} on each line, not {line[:60]!r}.'
            ) from None
    return lines


def _planned(reading: Interpretation, path: Path | None, *, check: bool) -> tuple[dict[str, Any], StudyPlan | None]:
    """The answer of `plan --json`: the reading, and for a ready goal the calls and the estimate; and its plan."""
    answer: dict[str, Any] = {**reading.as_json(), "plan": None, "estimate": None}
    if reading.status != "ready" or reading.spec is None:
        return answer, None
    spec = reading.spec.model_copy(update={"schedule": None})  # of a goal that recurs, the plan is of one occurrence
    try:
        if check:
            drawn = preflight(spec, opened(path), Path.cwd())
        else:
            settings = load_settings()
            seen = replace(blind(spec, settings.model), sft=settings.sft.asked)
            drawn = study_plan(spec, Machine(devices=len(leases.devices())), seen)
    except NightsmithError as refusal:
        status = "blocked" if check else answer["status"]
        return answer | {"status": status, "reasons": [*answer["reasons"], str(refusal)]}, None
    shown = drawn.model_dump(mode="json")
    return answer | {"plan": shown["calls"], "estimate": shown["estimate"]}, drawn


def train(
    spec_file: Path, path: Path | None, *, study: str, time_limit_s: float, gpus: int = 0, yes: bool, as_json: bool
) -> int:
    """One job by hand, on GPUs or one CPU core. Its account is a study's, or `manual` with nightsmith.toml's limits."""
    spec: RunSpec = parse_spec(spec_file)
    require_trainer(spec)
    ws = opened(path)
    account = study or MANUAL
    if not study:
        _open_manual(ws, spec, time_limit_s, yes=yes)
    key = jobs.start(
        ws, spec, study=account, step=f"manual-{spec.digest()[:8]}", role="manual", time_limit_s=time_limit_s,
        num_devices=gpus or 1, device_kind="cuda" if gpus else "cpu",
    )  # fmt: skip
    line = render.ProgressLine()
    while (result := jobs.poll(ws, key)) is None:
        if sys.stdout.isatty() and not as_json:
            line.draw(ws, [key])
        time.sleep(0.25)
    line.clear()
    print(result.model_dump_json(indent=1) if as_json else render.result(ws, result))
    return 0 if result.status is RunStatus.FINISHED else 3


def parse_spec(spec_file: Path) -> RunSpec:
    """The spec in a file. Raises NightsmithError."""
    try:
        return TypeAdapter[RunSpec](RunSpec).validate_json(_read(spec_file))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise NightsmithError(f"{spec_file} is not a RunSpec: {problems}. See docs/schemas/RunSpec.json.") from None


def _open_manual(ws: Workspace, spec: RunSpec, time_limit_s: float, *, yes: bool) -> None:
    """`--yes` (or a person at the terminal) approves exactly this spec; the account's limits come from the settings."""
    limits = load_settings().budget or Budget()
    if not budget.is_open(ws, MANUAL):
        budget.open_account(ws, MANUAL, limits)
    asked = not yes and sys.stdin.isatty()
    question = f"Start one {spec.kind} job of at most {time_limit_s:.0f} s? [y/N] "
    if yes or (asked and input(question).lower() in ("y", "yes")):
        digest = spec.digest()
        envelope = Envelope(
            study=MANUAL, spec_digest=digest, plan_digest=digest, kinds=(spec.kind,), time_limit_s=time_limit_s
        )
        approvals.approve(ws, envelope, how="console" if asked else "flag", valid_s=60)
        if budget.balance(ws, MANUAL).budget != limits:  # the settings were changed since, and a person says yes now
            budget.amend(ws, MANUAL, limits)


def pull(name: str) -> int:
    """Fetch a model into the user's cache."""
    from nightsmith.model import pull as fetching

    if name != "planner":
        raise NightsmithError(f"There is nothing called {name!r} to pull. Available: planner.")
    print(fetching.pull())
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NightsmithError(f"Cannot read {path}: {error}.") from None
