"""How datasets are planned: those that a study trains and judges on, and those that a goal asks for by themselves."""

from collections.abc import Sequence
from typing import Any

from nightsmith.agent import figures, planning_sft
from nightsmith.agent.fitting import LEAST_LIMIT_S, REPORT_S, Blocked, Machine, wall_s
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.looking import Look, column_notes
from nightsmith.agent.plan import Estimate, StudyPlan
from nightsmith.tools.base import ToolCall
from nightsmith.tools.data.plan import BuildDataset, fitting_shares
from nightsmith.tools.data.requests import with_requests

TEXT_SHARES = (0.1, 0.3, 4)
"""Of rows of text: share of dev, of all sealed folds together, and their number; each serves the look of one study."""
NOT_SEEN = "Nobody has looked at the data: what its rows are is a guess until `plan --check`, or a run, looks."
BUILD_BYTES_PER_S = 5e6
"""Read, hashed, placed and written; measured builds on one core do more."""


def data_plan(spec: GoalSpec, machine: Machine, look: Look) -> StudyPlan:
    """The plan of a goal that asks for a dataset alone: nothing is trained, and no job is started.

    Raises:
        Blocked: the goal has no data to train on, or too little time.
        ToolError: there are too few rows, or a data step cannot be done.
    """
    refs = tuple(ref for role in ("train", "preference", "prompts", "replay") for ref in refs_of(spec, role))
    held = refs_of(spec, "eval"), refs_of(spec, "test")
    rows, said = rows_kind(look, (*refs, *held[0], *held[1]))
    shares = TEXT_SHARES if rows == "text" else fitting_shares(sum(look.of(ref).num_rows for ref in refs))
    args: dict[str, Any] = {"dev_share": shares[0], "sealed_share": shares[1], "num_folds": shares[2]}
    args |= {name: each for name, each in zip(("dev_sources", "sealed_sources"), held, strict=True) if each}
    build = build_of(spec, rows, refs, look, args)
    notes = [*column_notes(look, [data.ref for data in spec.data]), *said, *_held_out_notes(build)]
    call = ToolCall(tool="build_dataset", args=build.model_dump(mode="json", exclude_defaults=True))
    return StudyPlan(
        calls=(*inspections(spec), call),
        recipe={}, space=(), max_trials=0, seeds=1, parallel=1, max_confirmations=0, job_limit_s=LEAST_LIMIT_S,
        estimate=_estimate(spec, machine, look), assumptions=tuple(notes),
    )  # fmt: skip


def inspections(spec: GoalSpec) -> tuple[ToolCall, ...]:
    """One look at each source."""
    return tuple(ToolCall(tool="inspect_data", args={"source": data.ref}) for data in spec.data)


def rows_kind(look: Look, refs: Sequence[str]) -> tuple[str, list[str]]:
    """As what the rows of all sources can be read: pairs of answers, conversations, else texts; and why texts."""
    if not look.data:
        return "text", [NOT_SEEN]
    seen = [look.of(ref) for ref in refs]
    if all(each.has_pairs for each in seen):
        return "preference", []
    if all(each.columns for each in seen):
        return "chat", []
    problems = [f"Rows are read as texts: {each.problem}" for each in seen if each.problem]
    return "text", problems[:1]


def check_supported(spec: GoalSpec) -> None:
    """Refuse what a goal of data cannot ask for, with the reason."""
    asked = {
        "a target": bool(spec.targets or spec.guardrails),
        "an output": spec.output is not None,
        "training": bool(spec.methods),
        "settings of a training": bool(spec.settings),
        "a budget in money": spec.budget.cost is not None,
    }
    for what in (name for name, present in asked.items() if present):
        raise Blocked(
            f"The goal builds data and asks for {what} too: only sources, data steps and a time limit mean something "
            "there. Leave it out, or ask for training on the data."
        )
    if spec.schedule is not None:
        raise Blocked('The goal recurs: schedule it with `nightsmith night add "GOAL"`, or leave the times out.')


def _held_out_notes(build: BuildDataset) -> list[str]:
    """How much is held out, where the goal does not say it."""
    if build.dev_rows is not None or build.dev_sources or build.sealed_sources:
        return []
    folds = figures.counted(build.num_folds, "sealed fold")
    return [f"Held out: {build.dev_share:.0%} of the rows as dev, {build.sealed_share:.0%} in {folds}."]


def _estimate(spec: GoalSpec, machine: Machine, look: Look) -> Estimate:
    """Raises Blocked where the time does not hold the build."""
    num_bytes = sum(look.of(data.ref).num_bytes for data in spec.data)
    total = REPORT_S + num_bytes / BUILD_BYTES_PER_S
    if (wall := wall_s(spec, machine)) < total:
        raise Blocked(f"{wall:.0f} s do not hold a build of {num_bytes / 1e6:.1f} MB: about {total:.0f} s would.")
    return Estimate(trial_s=0, total_s=round(total, 1), tokens=0, basis="assumed, from the size of the sources")


def build_of(spec: GoalSpec, rows: str, refs: Sequence[str], look: Look | None, more: dict[str, Any]) -> BuildDataset:
    """The build with the steps that the goal asks for, and the columns that were found."""
    args: dict[str, Any] = {"sources": refs, **more}
    if rows != "text":
        sources = (*refs, *more.get("dev_sources", ()), *more.get("sealed_sources", ()))
        known = {ref: look.of(ref).columns for ref in sources} if look else {}
        columns = {ref: columns for ref, columns in known.items() if columns}
        args |= {"rows": rows, "columns": columns}
        if (most := planning_sft.most_bytes(look)) is not None:
            args["max_bytes"] = most
    return with_requests(BuildDataset(**args), spec.pipeline, avoid=spec.avoid)


def refs_of(spec: GoalSpec, role: str) -> tuple[str, ...]:
    """Sources that the goal names for a role."""
    return tuple(dict.fromkeys(data.ref for data in spec.data if data.role == role))
