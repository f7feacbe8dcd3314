"""How goals that only measure are planned: one model, or two on the same rows. Nothing is trained."""

import math
from dataclasses import dataclass, replace
from typing import Any

from nightsmith.agent import figures, planning_sft, sft_costs
from nightsmith.agent.fitting import LEAST_LIMIT_S, LIMIT_FACTOR, REPORT_S, SHARE_FOR_SLACK, Blocked, Machine, wall_s
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.looking import Look, column_notes, compared_with
from nightsmith.agent.plan import Estimate, StudyPlan
from nightsmith.agent.planning_data import NOT_SEEN, build_of, inspections, rows_kind
from nightsmith.agent.planning_sft import Stage
from nightsmith.evals.types import Target
from nightsmith.tools.base import ToolCall

TEXT_METRICS = ("bits_per_byte", "perplexity", "loss")
ANSWER_METRICS = ("exact_match", "token_f1", "output_tokens")
"""Metrics of generated answers."""
PAIR_METRICS = ("accuracy",)
"""Metrics of pairs of answers: the share in which the chosen one is likelier."""
MODEL, REFERENCE = "$model", "$reference"
"""Names, in a plan, of what is measured and of what it is compared with."""
WITHOUT_BUDGET_S = 1800.0
"""A goal that names no time has so many rows evaluated as fit into this."""
MOST_ITEMS = 10**7
ANSWER_BYTES, TEXT_BYTES = 2048, 4096
"""Bytes of an item that are scored by likelihood: of an answer, of a text."""


def measured_plan(spec: GoalSpec, machine: Machine, look: Look) -> StudyPlan:
    """The plan: rows that only evaluate, and one evaluation a model. Raises Blocked, or ToolError."""
    refs = tuple(dict.fromkeys(data.ref for data in spec.data))
    rows, said = rows_kind(look, refs) if look.data else _unseen(spec)
    _check_metrics(spec, rows)
    look = _for_both(look)
    sealed = any(target.value is not None for target in spec.targets)
    kept = spec.model_copy(update={"pipeline": tuple(step for step in spec.pipeline if step.step != "sample")})
    build = build_of(kept, rows, (), look, {"sealed_sources" if sealed else "dev_sources": refs})
    suite, cost = _suite(spec, machine, look, refs, rows)
    args = {"split": "sealed" if sealed else "dev", **suite}
    names = [MODEL, *([REFERENCE] if look.reference else [])]
    notes = [*column_notes(look, refs), *said, *cost.said, *_notes(spec, look, rows)]
    parallel = min(machine.devices, len(names))
    seconds = cost.seconds * math.ceil(len(names) / parallel)
    return StudyPlan(
        calls=(
            *inspections(spec),
            ToolCall(tool="build_dataset", args=build.model_dump(mode="json", exclude_defaults=True)),
            *(ToolCall(tool="evaluate", args={"job": name, **args}) for name in names),
        ),
        model=look.model.ref, reference=look.reference.ref if look.reference else None,
        recipe={}, space=(), max_trials=0, seeds=1, parallel=parallel, max_confirmations=0,
        job_limit_s=round(min(max(LIMIT_FACTOR * cost.seconds, LEAST_LIMIT_S), wall_s(spec, machine)), 1),
        estimate=Estimate(
            trial_s=0, total_s=round(seconds + REPORT_S, 1), tokens=0, basis=cost.basis,
            gpu_hours=round(len(names) * cost.seconds / 3600, 3) if machine.gpus else 0.0,
        ),
        assumptions=tuple(notes),
    )  # fmt: skip


def _unseen(spec: GoalSpec) -> tuple[str, list[str]]:
    """As what rows are taken that nobody has looked at: as what the goal's metrics need."""
    metrics = {target.metric for target in spec.targets}
    rows = "preference" if metrics & {*PAIR_METRICS} else "chat" if metrics & {*ANSWER_METRICS} else "text"
    return rows, [NOT_SEEN]


def main_metric(spec: GoalSpec, rows: str) -> str:
    """The metric that is told first: the goal's, else what the rows are best measured by."""
    if spec.targets:
        return spec.targets[0].metric
    return {"preference": "accuracy", "chat": "exact_match"}.get(rows, "bits_per_byte")


def check_supported(spec: GoalSpec, machine: Machine) -> None:
    """Refuse, with the reason, what a measurement cannot honour."""
    asked = {
        "training": bool(spec.methods),
        "settings": bool(spec.settings),
        "a guardrail": bool(spec.guardrails),
        "an output": spec.output is not None,
        "a reward": spec.reward is not None,
        "a budget in money": spec.budget.cost is not None,
    }
    for what in (name for name, present in asked.items() if present):
        raise Blocked(
            f"The goal measures a model and asks for {what} too: only model, data, metrics, targets and a time limit "
            "mean something there. Leave it out, or ask for training."
        )
    if spec.schedule is not None:
        raise Blocked('The goal recurs: schedule it with `nightsmith night add "GOAL"`, or leave the times out.')
    if spec.gpus and spec.gpus > machine.gpus:
        raise Blocked(f"The goal asks for {spec.gpus} GPUs; this machine has {machine.gpus}. Leave GPUs out.")
    if step := next((each for each in spec.pipeline if each.step not in ("dedup", "decontaminate", "sample")), None):
        raise Blocked(f"The step {step.step!r} means nothing where rows only evaluate; possible are dedup and sample.")
    _check_targets(spec)
    if not spec.data:
        raise Blocked(
            "The goal names no data to evaluate on. Benchmarks are not built in: name a file or folder of your own."
        )


def _check_targets(spec: GoalSpec) -> None:
    for target in spec.targets:
        if target.task:
            raise Blocked(
                f"{target.task!r} is a benchmark by name, and none is built in. Name a file with its questions and "
                "answers instead."
            )
        if target.stage is not None or (target.data and [target.data] != [data.ref for data in spec.data]):
            raise Blocked(f"{target.metric} on {target.data or 'a stage'} alone cannot be measured: name one source.")
        if target.metric in figures.SHARES and target.relative_to is None and not 0 <= (target.value or 0) <= 1:
            raise Blocked(f"{target.metric} lies between 0 and 100 %; {target.value:.0%} cannot be its target.")
    others = {target.relative_to for target in spec.targets if target.relative_to}
    if spec.intent == "evaluate" and others:
        raise Blocked(
            f"The goal measures one model, and its target is relative to {others.pop()!r}. Ask for a comparison of the "
            "two models, or give the target as a value."
        )
    if spec.intent == "compare" and (len(others) != 1 or "baseline" in others or spec.model is None):
        named = ", ".join(sorted({spec.model or "", *others} - {"", "baseline"})) or "none"
        raise Blocked(
            f"A comparison needs two models and what they are compared by; the goal names {named}. Say, for instance, "
            "'Compare ./a with ./b on ./test.jsonl by exact match'."
        )


def _check_metrics(spec: GoalSpec, rows: str) -> None:
    known = TEXT_METRICS + (ANSWER_METRICS if rows != "text" else ()) + (PAIR_METRICS if rows == "preference" else ())
    for target in spec.targets:
        if target.metric not in known:
            what = {"text": "texts", "chat": "prompts and answers", "preference": "pairs of answers"}[rows]
            raise Blocked(f"{target.metric} cannot be measured on rows of {what}; use {', '.join(known)}.")


def _for_both(look: Look) -> Look:
    """Rows must suit the shorter context of two models, and time the larger one."""
    if look.reference is None:
        return look
    refs = look.model.ref, look.reference.ref
    if refs[0] and refs[1] and refs[0].weights_digest == refs[1].weights_digest:
        raise Blocked(f"{look.model.name} and {look.reference.name} hold the same weights: name two different models.")
    sizes = (look.model.size, look.reference.size)
    longest = min((size.max_len for size in sizes if size.max_len is not None), default=None)
    size = replace(
        max(sizes, key=lambda each: each.num_params), max_len=longest,
        is_byte_level=any(each.is_byte_level for each in sizes),
    )  # fmt: skip
    return replace(look, model=replace(look.model, size=size))


@dataclass(frozen=True)
class _Cost:
    """What one model's evaluation takes."""

    seconds: float
    basis: str
    said: tuple[str, ...]


def _suite(
    spec: GoalSpec, machine: Machine, look: Look, refs: tuple[str, ...], rows: Any
) -> tuple[dict[str, Any], _Cost]:
    """Arguments of the evaluations, and what one takes: all rows, or as many as the goal or its time allows."""
    stage = Stage("sft", rows, refs, {"max_len": planning_sft.max_len(look, refs, rows), "adaptation": "full"})
    speed = sft_costs.speeds(machine, look, (stage,))
    one = sft_costs.item_s(look, stage, speed) if rows != "text" else _text_s(look, refs, speed.forward)
    there = sum(look.of(ref).num_rows for ref in refs)
    wanted, wall = _wanted(spec, there), wall_s(spec, machine)
    wall = WITHOUT_BUDGET_S if math.isinf(wall) else wall
    rounds = 2 if compared_with(spec) and machine.devices == 1 else 1
    room = int(((wall * (1 - SHARE_FOR_SLACK) - REPORT_S) / rounds - sft_costs.EVALUATION_START_S) / one)
    if room < 2:
        raise Blocked(f"{wall:.0f} s do not hold an evaluation: a row takes about {one:.1f} s. Give more time.")
    items = max(2, min(wanted, room))
    said = [f"Of about {there:,} rows {items:,} are evaluated, the first by row id."] if items < there else []
    whole = items == there and there == wanted  # rows were counted roughly, and few texts are cut into more
    suite: dict[str, Any] = {"max_items": min(max(room, there), MOST_ITEMS) if whole else items}
    suite |= {"seq_len": stage.recipe["max_len"], "max_bytes": TEXT_BYTES if rows == "text" else ANSWER_BYTES}
    if rows != "text":
        suite |= {"kind": "chat", "answers": True, "pairs": rows == "preference"}
    return suite, _Cost(sft_costs.EVALUATION_START_S + items * one, speed.basis, tuple(said))


def _text_s(look: Look, refs: tuple[str, ...], tokens_per_s: float) -> float:
    """Seconds to read what is scored of one text."""
    num_bytes = sum(look.of(ref).num_bytes for ref in refs) / max(1, sum(look.of(ref).num_rows for ref in refs))
    return max(1.0, min(num_bytes, TEXT_BYTES) / look.model.size.bytes_per_token) / tokens_per_s


def _wanted(spec: GoalSpec, there: int) -> int:
    """Rows that the goal asks for."""
    asked = next((step for step in spec.pipeline if step.step == "sample" and step.amount), None)
    if asked is None or asked.amount is None:
        return there
    share = asked.unit == "share" or (asked.unit is None and asked.amount <= 1)
    return min(there, math.ceil(asked.amount * there) if share else int(asked.amount))


def _notes(spec: GoalSpec, look: Look, rows: str) -> list[str]:
    told: list[str] = []
    if rows == "text":
        told.append(f"Of each text at most {TEXT_BYTES:,} bytes are scored, from its beginning.")
    if spec.model is None:
        told.append(f"No model is named: {look.model.name} is evaluated.")
    if not spec.targets:
        told.append(f"No metric is named: {figures.metric_label(main_metric(spec, rows))} is told first.")
    likelihood = [target.metric for target in spec.targets if target.metric in TEXT_METRICS]
    if rows != "text" and likelihood:
        told.append(f"{figures.metric_label(likelihood[0])} is that of the answers, given their prompts.")
    if any(_is_bound(target) for target in spec.targets):
        told.append("The rows are sealed and looked at once; none of them may have been evaluated before.")
    return told


def _is_bound(target: Target) -> bool:
    return target.value is not None
