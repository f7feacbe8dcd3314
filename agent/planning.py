"""From a GoalSpec to a StudyPlan: what this version can do, the stages of a run, how many trials fit, what it takes.

Pure: reads the spec, what preflight looked at and measured; starts nothing, opens no file. What the goal left open
becomes an assumption, in words, in the plan. How a method is planned: `planning_pretrain`, `planning_sft`.
"""

from collections.abc import Sequence
from typing import Any

from nightsmith.agent import figures, planning_data, planning_measured, planning_pretrain, planning_sft, sft_costs
from nightsmith.agent.fitting import Blocked, Fitted, Machine, seeds_per_side
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.looking import Look, begins_at_random, blind, column_notes, long_rows
from nightsmith.agent.materials import DATASET, SEALED_PER_DEV, dataset_name
from nightsmith.agent.plan import StudyPlan
from nightsmith.agent.planning_data import TEXT_SHARES, build_of, refs_of
from nightsmith.agent.planning_measured import ANSWER_METRICS, PAIR_METRICS, TEXT_METRICS
from nightsmith.agent.planning_sft import Stage
from nightsmith.tools.base import ToolCall
from nightsmith.tools.data.plan import BuildDataset, fitting_shares

__all__ = ["Blocked", "Machine", "check_supported", "seeds_per_side", "study_plan"]

CHAINS = (
    ("pretrain",), ("sft",), ("sft", "sft"), ("pretrain", "sft"),
    ("dpo",), ("sft", "dpo"), ("pretrain", "sft", "dpo"),
    ("grpo",), ("sft", "grpo"), ("pretrain", "sft", "grpo"),
)  # fmt: skip
"""Stages that this version runs, in order."""
LEAST_DEV_SHARE = 0.01
"""Rows that an earlier stage holds out: nothing looks at them."""
PRETRAIN_ITEMS, PRETRAIN_BYTES = 384, 4096
"""Rows scored on the sealed split, and bytes of each."""
ANSWER_BYTES = 2048
"""Bytes of a reference answer that are scored by likelihood."""


def study_plan(spec: GoalSpec, machine: Machine, look: Look | None = None) -> StudyPlan:
    """Plan the study. Without a look at data and model, their size is assumed. Raises Blocked, or ToolError."""
    check_supported(spec, machine)
    seen = look or blind(spec, None)
    if spec.intent == "build_data":
        return planning_data.data_plan(spec, machine, seen)
    if spec.intent != "train":
        return planning_measured.measured_plan(spec, machine, seen)
    is_alone = spec.methods == ("pretrain",) and begins_at_random(spec)
    return _from_scratch(spec, machine) if is_alone else _staged(spec, machine, seen)


def _from_scratch(spec: GoalSpec, machine: Machine) -> StudyPlan:
    """One stage that begins with random weights."""
    recipe, said = planning_pretrain.baseline_recipe(spec)
    fitted = planning_pretrain.fitted(spec, machine, recipe)
    recipe, told = planning_pretrain.shortened(recipe, fitted.share)
    stage = Stage("pretrain", "text", refs_of(spec, "train"), recipe)
    suite = {"max_items": PRETRAIN_ITEMS, "max_bytes": PRETRAIN_BYTES, "seq_len": recipe["seq_len"]}
    calls = _calls(spec, (stage,), suite, None)
    return _drawn(spec, machine, fitted, calls, planning_pretrain.tunables(spec, recipe), recipe, [*said, *told])


def _staged(spec: GoalSpec, machine: Machine, look: Look) -> StudyPlan:
    """Stages that fine-tune: a model that is named, or one that the first stage trains."""
    full, said = planning_sft.stages_of(spec, look, sum(_shares(spec, look)[:2]))
    reference = full[0].tool != "pretrain"
    fitted = sft_costs.fitted(spec, machine, look, full)
    stages, told = planning_sft.shortened(full, fitted.share)
    last = stages[-1]
    items = SEALED_PER_DEV * sft_costs.dev_items(machine, look, full)
    suite: dict[str, Any] = {"max_items": items, "max_bytes": ANSWER_BYTES, "seq_len": last.recipe["max_len"]}
    if last.rows != "text":
        _check_held_out(spec, look)
        suite |= {"kind": "chat", "answers": True}
    if last.rows == "preference" and _holds_out_pairs(spec, look):
        suite["pairs"] = True
    calls = _calls(spec, stages, suite, look)
    refs = [data.ref for data in spec.data]
    notes = [*_model_notes(spec, look), *column_notes(look, refs)]
    notes += [*long_rows(look, refs, planning_sft.most_bytes(look) if last.rows != "text" else None), *said, *told]
    plan = _drawn(spec, machine, fitted, calls, planning_sft.tunables(spec, last), last.recipe, notes)
    return plan.model_copy(update={"model": look.model.ref if reference else None})


def _drawn(
    spec: GoalSpec, machine: Machine, fitted: Fitted, calls: tuple[ToolCall, ...], space: Any, recipe: Any,
    said: Sequence[str],
) -> StudyPlan:  # fmt: skip
    return StudyPlan(
        calls=calls,
        recipe=recipe,
        space=space,
        max_trials=fitted.max_trials,
        seeds=seeds_per_side(spec, machine.devices),
        parallel=machine.devices,
        max_confirmations=fitted.max_confirmations,
        job_limit_s=fitted.job_limit_s,
        estimate=fitted.estimate,
        assumptions=(*said, *fitted.said),
    )


def _model_notes(spec: GoalSpec, look: Look) -> list[str]:
    if spec.model is not None or begins_at_random(spec):
        return []
    return [f"No model is named: {look.model.name} is fine-tuned."]


def _calls(spec: GoalSpec, stages: Sequence[Stage], suite: dict[str, Any], look: Look | None) -> tuple[ToolCall, ...]:
    """The typed calls in order; `$dataset`, `$model` and `$winner` stand for what the study finds and makes."""
    builds, names = _builds(spec, stages, look)
    trains = [
        ToolCall(tool=stage.tool, args={"dataset": name, **stage.recipe})
        for stage, name in zip(stages, names, strict=True)
    ]
    return (
        *(ToolCall(tool="inspect_data", args={"source": d.ref}) for d in spec.data),
        *(ToolCall(tool="build_dataset", args=b.model_dump(mode="json", exclude_defaults=True)) for b in builds),
        *trains,
        ToolCall(tool="evaluate", args={"job": "$winner", "split": "sealed", **suite}),
    )


def _builds(spec: GoalSpec, stages: Sequence[Stage], look: Look | None) -> tuple[list[BuildDataset], list[str]]:
    """The datasets in the order in which they are built, and the name of each stage's.

    The last stage's comes first: its held-out rows judge, so no other stage may train on them.
    """
    wanted = [_kind(stage, look) for stage in stages]
    kinds = list(dict.fromkeys([wanted[-1], *wanted[:-1]]))
    builds = [_judging_build(spec, *kinds[0], look), *(_training_build(spec, *kind, look) for kind in kinds[1:])]
    return builds, [dataset_name(kinds.index(kind)) for kind in wanted]


def _kind(stage: Stage, look: Look | None) -> tuple[str, tuple[str, ...]]:
    """Rows and sources of a stage's dataset. Conversations can be read as texts too, and their columns are known;
    pairs as conversations that end with the better answer.
    """
    if look and all(look.of(ref).has_pairs for ref in stage.refs):
        return "preference", stage.refs
    known = bool(look) and all(look.of(ref).columns for ref in stage.refs)
    return "chat" if known else stage.rows, stage.refs


def _judging_build(spec: GoalSpec, rows: str, refs: Sequence[str], look: Look | None) -> BuildDataset:
    """The dataset of the last stage: with rows to screen by, and sealed ones."""
    held = {"dev_sources": refs_of(spec, "eval"), "sealed_sources": refs_of(spec, "test")}
    dev, sealed, folds = _shares(spec, look)
    args: dict[str, Any] = {"dev_share": dev or TEXT_SHARES[0], "sealed_share": sealed, "num_folds": folds}
    args |= {name: sources for name, sources in held.items() if sources}
    return build_of(spec, rows, refs, look, args)


def _training_build(spec: GoalSpec, rows: str, refs: Sequence[str], look: Look | None) -> BuildDataset:
    """The dataset of an earlier stage: all of its rows train, but for those that judge the last one."""
    return build_of(spec, rows, refs, look, {"without": (DATASET,), "dev_share": LEAST_DEV_SHARE, "sealed_share": 0.0})


def _shares(spec: GoalSpec, look: Look | None) -> tuple[float, float, int]:
    """Shares of the last stage's rows that are held out: for dev, for all sealed folds, and the number of folds."""
    dev, sealed, folds = TEXT_SHARES
    if spec.methods[-1] != "pretrain" and look:
        sources = planning_sft.sources_of(spec, look, len(spec.methods) - 1)
        dev, sealed, folds = fitting_shares(sum(look.of(ref).num_rows for ref in sources))
    tested = bool(refs_of(spec, "test"))
    return 0.0 if refs_of(spec, "eval") else dev, 0.0 if tested else sealed, 1 if tested else folds


def _held_out(spec: GoalSpec) -> tuple[str, ...]:
    """Sources of rows that only evaluate."""
    return *refs_of(spec, "eval"), *refs_of(spec, "test")


def _check_held_out(spec: GoalSpec, look: Look) -> None:
    """Refuse data to evaluate on that are no conversations, and pairs that nobody can compare. Raises Blocked."""
    for ref in _held_out(spec):
        if problem := planning_sft.problem_with(look, ref, "sft"):
            raise Blocked(problem)
    asked = [t.metric for t in (*spec.targets, *spec.guardrails) if t.metric in PAIR_METRICS]
    if asked and not _holds_out_pairs(spec, look):
        problems = [problem for ref in _held_out(spec) if (problem := look.of(ref).pairs_problem)]
        raise Blocked(f"{asked[0]} is measured on held-out pairs of answers. {problems[0]}")


def _holds_out_pairs(spec: GoalSpec, look: Look) -> bool:
    """Whether the rows that judge are pairs too, as far as anybody looked."""
    return not any(look.of(ref).pairs_problem or look.of(ref).is_text for ref in _held_out(spec))


def check_supported(spec: GoalSpec, machine: Machine) -> None:
    """Refuse, with the reason, what this version cannot do: nothing is substituted silently."""
    if spec.intent == "build_data":
        return planning_data.check_supported(spec)
    if spec.intent != "train":
        return planning_measured.check_supported(spec, machine)
    if tuple(spec.methods) not in CHAINS:
        asked = " then ".join(spec.methods) or "no method"
        known = ", ".join(" then ".join(chain) for chain in CHAINS)
        raise Blocked(f"The goal asks for {asked}; this version trains by: {known}.")
    _check_targets(spec)
    _check_data(spec)
    _check_wishes(spec)
    if spec.gpus and spec.gpus > machine.gpus:
        raise Blocked(
            f"The goal asks for {spec.gpus} GPUs; this machine has {machine.gpus}. Leave GPUs out to use CPUs."
        )


def _check_targets(spec: GoalSpec) -> None:
    measured = (
        *TEXT_METRICS, *(ANSWER_METRICS if spec.methods[-1] != "pretrain" else ()),
        *(PAIR_METRICS if spec.methods[-1] == "dpo" else ()),
    )  # fmt: skip
    known = {None, *(data.ref for data in spec.data)}
    for target in (*spec.targets, *spec.guardrails):
        if target.metric not in measured:
            what = "a fine-tuned" if spec.methods[-1] != "pretrain" else "a pre-trained"
            raise Blocked(f"{target.metric} cannot be measured on {what} model; use {', '.join(measured)}.")
        if target.metric in figures.SHARES and not target.relative_to and not 0 <= (target.value or 0) <= 1:
            raise Blocked(f"{target.metric} lies between 0 and 100 %; {target.value:.0%} cannot be its target.")
        if target.relative_to not in (None, "baseline"):
            raise Blocked(f"A target relative to {target.relative_to!r} is not possible here; use the baseline.")
        if target.task or target.stage not in (None, len(spec.methods) - 1) or target.data not in known:
            where = target.task or target.data or f"stage {target.stage}"
            raise Blocked(f"{target.metric} on {where!r} cannot be measured yet; targets hold on held-out rows.")


def _check_data(spec: GoalSpec) -> None:
    for data in spec.data:
        if data.role not in ("train", "eval", "test", *(("preference",) if "dpo" in spec.methods else ())):
            raise Blocked(
                f"{data.ref!r} as {data.role} data is not possible yet: name data to train on, to evaluate or to test."
            )
        if data.stage is not None and not 0 <= data.stage < len(spec.methods):
            raise Blocked(f"{data.ref!r} belongs to stage {data.stage + 1}, but there are {len(spec.methods)}.")


def _check_wishes(spec: GoalSpec) -> None:
    """Refuse what would otherwise be left out without a word."""
    if spec.schedule is not None:
        raise Blocked('The goal recurs: schedule it with `nightsmith night add "GOAL"`, or leave the times out.')
    scratch = begins_at_random(spec)
    asked = {
        "4-bit adapters (QLoRA)": spec.adaptation == "qlora",
        "LoRA on random weights": spec.adaptation == "lora" and scratch and len(spec.methods) == 1,
        "another shape of a model that exists": spec.architecture is not None and not scratch,
        "an output": spec.output is not None,
        "several machines": bool(spec.nodes and spec.nodes > 1),
        "a budget in money": spec.budget.cost is not None,
        "a reward": spec.reward is not None and "grpo" not in spec.methods,
    }  # fmt: skip
    for what in (name for name, present in asked.items() if present):
        raise Blocked(f"The goal asks for {what}, which this version cannot honour here. Leave it out.")
