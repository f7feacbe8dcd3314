"""From a GoalSpec to a StudyPlan: the baseline's recipe, what trials may change, how many fit, what it will take.

Pure: reads the spec, the number of devices and measured speeds; starts nothing, opens no file. What the goal left
open becomes an assumption, in words, in the plan.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import Estimate, StudyPlan, Tunable
from nightsmith.model.presets import PRESETS
from nightsmith.record.errors import NightsmithError
from nightsmith.tools import registry, training
from nightsmith.tools.arguments import did_you_mean
from nightsmith.tools.base import ToolCall
from nightsmith.tools.data.build import BuildDataset
from nightsmith.tools.data.requests import with_requests
from nightsmith.tools.training import Pretrain, Value

METRICS = ("bits_per_byte", "perplexity", "loss")
DEFAULT_PRESET = "nano"
DEFAULT_STEPS = {"nano": 400, "micro": 400, "mini": 300}
ASSUMED_TOKENS_PER_S = {"nano": 16_000.0, "micro": 3_500.0, "mini": 900.0}
"""One thread of a laptop; replaced by measured speeds as soon as this workspace has any."""
START_S, EVALUATE_S, REPORT_S = 8.0, 6.0, 15.0
SHARE_FOR_SLACK = 0.15
MIN_STEPS = 50
DEFAULT_TRIALS, MOST_TRIALS = 8, 200
MIN_SEEDS = 3
DEV_SHARE, SEALED_SHARE, NUM_FOLDS = 0.1, 0.3, 4
"""Each sealed fold serves the one look of one study."""

SPACE: tuple[Tunable, ...] = (
    Tunable(name="learning_rate", kind="float", low=1e-4, high=3e-2, log=True),
    Tunable(name="batch_size", kind="choice", choices=(4, 8, 16, 32)),
    Tunable(name="warmup_share", kind="float", low=0.0, high=0.3),
    Tunable(name="weight_decay", kind="float", low=0.0, high=0.3),
    Tunable(name="beta2", kind="choice", choices=(0.9, 0.95, 0.99)),
    Tunable(name="schedule", kind="choice", choices=("constant", "cosine", "wsd")),
    Tunable(name="router_aux_loss_coef", kind="float", low=0.0, high=0.05),
    Tunable(name="num_experts", kind="choice", choices=(4, 8, 16, 32)),
    Tunable(name="top_k", kind="choice", choices=(1, 2, 4)),
    Tunable(name="num_layers", kind="choice", choices=(1, 2, 3, 4, 6)),
)
"""What trials of a from-scratch pre-training may change. Every one keeps the number of training tokens."""

SETTING_NAMES = {"steps": "num_steps", "lr": "learning_rate", "layers": "num_layers", "experts": "num_experts"}


class Blocked(NightsmithError):
    """The goal cannot be pursued as it stands; the text says what would mend it."""

    exit_code = 5


@dataclass(frozen=True)
class Machine:
    """What preflight found on this machine."""

    devices: int = 1
    """Devices that may run side by side."""
    gpus: int = 0
    """Accelerators."""
    memory_bytes: float = math.inf
    """Main memory."""
    tokens_per_s: dict[str, float] = field(default_factory=lambda: {})
    """Measured training speed per preset and device."""
    num_measured: int = 0
    """Runs that the speeds were measured on."""
    seconds_to_deadline: float | None = None
    """Until the goal's deadline."""


def study_plan(spec: GoalSpec, machine: Machine) -> StudyPlan:
    """Plan the study. Raises Blocked where no honest plan exists."""
    check_supported(spec, machine)
    recipe, assumptions = baseline_recipe(spec)
    seeds = seeds_per_side(spec, machine.devices)
    limits = _fit(spec, machine, recipe, seeds, assumptions)
    recipe["num_steps"] = limits.num_steps
    return StudyPlan(
        calls=plan_calls(spec, recipe),
        recipe=recipe,
        space=tunables(spec, recipe),
        max_trials=limits.max_trials,
        seeds=seeds,
        parallel=machine.devices,
        job_limit_s=limits.job_limit_s,
        estimate=limits.estimate,
        assumptions=tuple(assumptions),
    )


def check_supported(spec: GoalSpec, machine: Machine) -> None:
    """Refuse, with the reason, what this version cannot do: nothing is substituted silently."""
    if spec.intent != "train":
        raise Blocked(f"Goals of intent {spec.intent!r} cannot be run by this version yet; it runs 'train'.")
    if tuple(spec.methods) != ("pretrain",):
        asked = " then ".join(spec.methods) or "no method"
        raise Blocked(f"The goal asks for {asked}; this version trains by 'pretrain' alone (from scratch).")
    if spec.model:
        raise Blocked(f"Pre-training starts from scratch, but the goal names the model {spec.model!r}.")
    for target in (*spec.targets, *spec.guardrails):
        if target.metric not in METRICS:
            raise Blocked(f"{target.metric} cannot be measured on a pre-trained model; use {', '.join(METRICS)}.")
        if target.relative_to not in (None, "baseline"):
            raise Blocked(f"A target relative to {target.relative_to!r} is not possible here; use the baseline.")
    _check_scope(spec)
    if spec.gpus and spec.gpus > machine.gpus:
        raise Blocked(
            f"The goal asks for {spec.gpus} GPUs; this machine has {machine.gpus}. Leave GPUs out to use CPUs."
        )


def _check_scope(spec: GoalSpec) -> None:
    """Refuse what would otherwise be left out without a word."""
    trained = {None, *(data.ref for data in spec.data if data.role == "train")}
    for data in spec.data:
        if data.role != "train":
            raise Blocked(
                f"{data.ref!r} as {data.role} data is not possible yet: rows of the training data are held out."
            )
    for target in (*spec.targets, *spec.guardrails):
        if target.task or target.stage or target.data not in trained:
            where = target.task or target.data or f"stage {target.stage}"
            raise Blocked(f"{target.metric} on {where!r} cannot be measured yet; targets hold on held-out rows.")
    asked = {
        "an adaptation (LoRA)": spec.adaptation not in (None, "full"),
        "a schedule": spec.schedule is not None,
        "an output": spec.output is not None,
        "several machines": bool(spec.nodes and spec.nodes > 1),
        "a budget in money": spec.budget.cost is not None,
        "a reward": spec.reward is not None,
    }
    for what in (name for name, present in asked.items() if present):
        raise Blocked(f"The goal asks for {what}, which this version cannot honour in pre-training. Leave it out.")


def baseline_recipe(spec: GoalSpec) -> tuple[dict[str, Value], list[str]]:
    """Settings of the baseline's training run, and the assumptions behind them. Raises ToolError for a bad value."""
    wanted = spec.architecture
    preset = (wanted.preset if wanted and wanted.preset else DEFAULT_PRESET).lower()
    assumptions: list[str] = []
    if not (wanted and wanted.preset):
        assumptions.append(f"No size is named: the {preset} preset is trained.")
    args: dict[str, Any] = {"preset": preset, "num_steps": DEFAULT_STEPS.get(preset, 300)} | _shape_asked(spec)
    asked = {setting_name(setting.name): setting.value for setting in spec.settings if setting.name != "seeds"}
    call = ToolCall(tool="pretrain", args=args | asked)
    chosen = registry.validate(call)
    assert isinstance(chosen, Pretrain)
    return {"preset": preset, **training.recipe(chosen)}, assumptions


def setting_name(name: str) -> str:
    """The recipe's name for a setting of the goal. Raises Blocked, with near names, where pre-training has none."""
    known = SETTING_NAMES.get(name, name)
    if known in training.SETTINGS:
        return known
    raise Blocked(
        f"Pre-training has no setting {name!r}.{did_you_mean(known, training.SETTINGS)} "
        f"Settings: {', '.join(training.SETTINGS)}."
    )


def _shape_asked(spec: GoalSpec) -> dict[str, Any]:
    wanted = spec.architecture
    if wanted is None:
        return {}
    if wanted.vocab not in (None, 259):
        raise Blocked(f"Presets are byte-level (259 tokens); the goal asks for a vocabulary of {wanted.vocab}.")
    if wanted.params_total or wanted.params_active:
        raise Blocked(f"Sizes by parameter count are not planned yet; name a preset ({', '.join(PRESETS)}) or a shape.")
    named = {"num_experts": wanted.experts, "top_k": wanted.top_k, "num_layers": wanted.layers}
    return {name: value for name, value in {**named, "seq_len": wanted.context}.items() if value is not None}


def tunables(spec: GoalSpec, recipe: dict[str, Value]) -> tuple[Tunable, ...]:
    """The search space: without what the goal fixes or forbids, and within what the recipe allows."""
    fixed = {setting_name(s.name) for s in spec.settings if s.how == "fixed" and s.name != "seeds"}
    fixed |= set(_shape_asked(spec)) | {SETTING_NAMES.get(name, name) for name in spec.avoid}
    free = (t for t in SPACE if t.name not in fixed)
    experts, top_k = int(recipe["num_experts"]), int(recipe["top_k"])
    allowed = {"top_k": range(1, experts + 1), "num_experts": range(top_k, 10**6)}
    return tuple(_within(t, allowed[t.name]) if t.name in allowed else t for t in free)


def _within(tunable: Tunable, allowed: range) -> Tunable:
    return tunable.model_copy(update={"choices": tuple(c for c in tunable.choices if int(c) in allowed)})


def seeds_per_side(spec: GoalSpec, devices: int) -> int:
    """Seeds of baseline and of a confirmation: three or more, rounded up so that no device idles in the last round."""
    asked = [int(s.value) for s in spec.settings if s.name == "seeds" and isinstance(s.value, (int, float))]
    least = max(MIN_SEEDS, *asked) if asked else MIN_SEEDS
    return least if devices >= least else math.ceil(least / devices) * devices


def plan_calls(spec: GoalSpec, recipe: dict[str, Value]) -> tuple[ToolCall, ...]:
    """The typed calls in order; `$dataset` and `$winner` stand for what the study makes."""
    sources = [d.ref for d in spec.data if d.role == "train"]
    build = BuildDataset(sources=tuple(sources), dev_share=DEV_SHARE, sealed_share=SEALED_SHARE, num_folds=NUM_FOLDS)
    build = with_requests(build, spec.pipeline, avoid=spec.avoid)
    return (
        *(ToolCall(tool="inspect_data", args={"source": source}) for source in sources),
        ToolCall(tool="build_dataset", args=build.model_dump(mode="json", exclude_defaults=True)),
        ToolCall(tool="pretrain", args={"dataset": "$dataset", **recipe}),
        ToolCall(tool="evaluate", args={"job": "$winner", "split": "sealed"}),
    )


@dataclass(frozen=True)
class _Limits:
    num_steps: int
    max_trials: int
    job_limit_s: float
    estimate: Estimate


def _fit(spec: GoalSpec, machine: Machine, recipe: dict[str, Value], seeds: int, assumptions: list[str]) -> _Limits:
    preset = str(recipe["preset"])
    tokens_per_step = int(recipe["batch_size"]) * int(recipe["seq_len"])
    speed = machine.tokens_per_s.get(preset) or ASSUMED_TOKENS_PER_S.get(preset, 100.0)
    trials = spec.budget.max_trials
    wall = min(w for w in (spec.budget.wall_clock_s, machine.seconds_to_deadline, math.inf) if w is not None)
    steps = int(recipe["num_steps"])
    cost = _Cost(seeds, machine.devices, tokens_per_step / speed)
    fixed_steps = any(s.name != "seeds" and setting_name(s.name) == "num_steps" for s in spec.settings)
    most = _most_steps(spec, cost, trials, wall, tokens_per_step)
    if most < (steps if fixed_steps else MIN_STEPS):
        raise Blocked(_too_small(cost, steps if fixed_steps else MIN_STEPS, wall, spec))
    if most < steps:
        assumptions.append(f"{most} steps per run instead of {steps}, so that the study fits into its budget.")
        steps = int(most)
    if trials is None:
        trials = _trials_that_fit(cost, steps, wall)
        assumptions.append(f"No number of trials is named: at most {trials}.")
    trial_s = cost.run_s(steps)
    basis = "measured on this machine" if machine.num_measured else "assumed speed of a laptop core"
    estimate = Estimate(
        trial_s=round(trial_s, 1),
        total_s=round(cost.total_s(steps, trials), 1),
        tokens=float(steps * tokens_per_step * (2 * seeds + trials)),
        basis=f"{basis} ({machine.num_measured} runs)" if machine.num_measured else basis,
    )
    limit = min(max(4 * trial_s, 120.0), wall, START_S + EVALUATE_S + (spec.budget.per_trial_s or math.inf))
    return _Limits(steps, trials, round(limit, 1), estimate)


@dataclass(frozen=True)
class _Cost:
    """Wall-clock arithmetic of a study: rounds of `devices` runs side by side."""

    seeds: int
    devices: int
    step_s: float

    def rounds(self, trials: int) -> int:
        return 2 * math.ceil(self.seeds / self.devices) + math.ceil(trials / self.devices)

    def run_s(self, steps: int) -> float:
        return START_S + EVALUATE_S + steps * self.step_s

    def total_s(self, steps: int, trials: int) -> float:
        return self.rounds(trials) * self.run_s(steps) + START_S + 3 * EVALUATE_S + REPORT_S

    def steps_within(self, wall: float, trials: int) -> float:
        left = wall * (1 - SHARE_FOR_SLACK) - self.total_s(0, trials)
        return left / (self.rounds(trials) * self.step_s)


def _most_steps(spec: GoalSpec, cost: _Cost, trials: int | None, wall: float, tokens_per_step: int) -> float:
    budget = spec.budget
    most = cost.steps_within(wall, 1 if trials is None else trials) if wall < math.inf else math.inf
    if budget.per_trial_s is not None:
        most = min(most, budget.per_trial_s * (1 - SHARE_FOR_SLACK) / cost.step_s)
    if budget.tokens is not None:
        most = min(most, (1 - SHARE_FOR_SLACK) * budget.tokens / (tokens_per_step * (2 * cost.seeds + (trials or 1))))
    return most if most == math.inf else math.floor(most)


def _too_small(cost: _Cost, steps: int, wall: float, spec: GoalSpec) -> str:
    trials = spec.budget.max_trials or 1
    least = math.ceil(cost.total_s(steps, trials) / (1 - SHARE_FOR_SLACK) / 10) * 10
    given = f"{wall:.0f} s" if wall < math.inf else "the tokens or seconds per trial"
    return (
        f"The budget is too small: {given} do not hold a baseline with {cost.seeds} seeds, {trials} trial(s) and a "
        f"confirmation. About {least} s would; fewer trials or a smaller preset need less."
    )


def _trials_that_fit(cost: _Cost, steps: int, wall: float) -> int:
    if wall == math.inf:
        return DEFAULT_TRIALS
    fits = (t for t in range(MOST_TRIALS, 0, -1) if cost.total_s(steps, t) <= wall * (1 - SHARE_FOR_SLACK))
    return next(fits, 1)
