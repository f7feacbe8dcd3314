"""How a model is pre-trained from scratch: the baseline's recipe, what trials may change, what runs take."""

from typing import Any

from nightsmith.agent.fitting import Blocked, Costs, Fitted, Machine, fit, seeds_per_side
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.plan import Tunable
from nightsmith.model.presets import PRESETS
from nightsmith.tools import registry, training
from nightsmith.tools.arguments import did_you_mean
from nightsmith.tools.base import ToolCall
from nightsmith.tools.training import Pretrain, Value

DEFAULT_PRESET = "nano"
DEFAULT_STEPS = {"nano": 400, "micro": 400, "mini": 300}
ASSUMED_TOKENS_PER_S = {"nano": 16_000.0, "micro": 3_500.0, "mini": 900.0}
"""One thread of a laptop; replaced by measured speeds as soon as this workspace has any."""
ASSUMED = "assumed speed of a laptop core"
START_S, EVALUATE_S = 8.0, 6.0
MIN_STEPS = 50

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
"""What trials may change. Every one keeps the number of training tokens."""

SETTING_NAMES = {"steps": "num_steps", "lr": "learning_rate", "layers": "num_layers", "experts": "num_experts"}


def baseline_recipe(spec: GoalSpec) -> tuple[dict[str, Value], list[str]]:
    """Settings of the baseline's training run, and the assumptions behind them. Raises ToolError for a bad value."""
    wanted = spec.architecture
    preset = (wanted.preset if wanted and wanted.preset else DEFAULT_PRESET).lower()
    said: list[str] = []
    if not (wanted and wanted.preset):
        said.append(f"No size is named: the {preset} preset is trained.")
    args: dict[str, Any] = {"preset": preset, "num_steps": DEFAULT_STEPS.get(preset, 300)} | _shape_asked(spec)
    asked = {setting_name(setting.name): setting.value for setting in spec.settings if setting.name != "seeds"}
    chosen = registry.validate(ToolCall(tool="pretrain", args=args | asked))
    assert isinstance(chosen, Pretrain)
    return {"preset": preset, **training.recipe(chosen)}, said


def fitted(spec: GoalSpec, machine: Machine, recipe: dict[str, Value]) -> Fitted:
    """What of the recipe fits into the budget. Raises Blocked."""
    preset, steps = str(recipe["preset"]), int(recipe["num_steps"])
    seconds, tokens = training_cost(machine, recipe)
    costs = Costs(
        devices=machine.devices, seeds=seeds_per_side(spec, machine.devices), fixed_s=START_S + EVALUATE_S,
        train_s=seconds, tokens=tokens, sealed_s=START_S + 3 * EVALUATE_S,
    )  # fmt: skip
    least = 1.0 if is_fixed(spec, "num_steps") else min(1.0, MIN_STEPS / steps)
    return fit(spec, machine, costs, least=least, worth_confirming=least, basis=machine.basis(preset, ASSUMED))


def training_cost(machine: Machine, recipe: dict[str, Value]) -> tuple[float, float]:
    """Seconds and tokens of one training run, without start and evaluation."""
    preset = str(recipe["preset"])
    tokens = float(int(recipe["num_steps"]) * int(recipe["batch_size"]) * int(recipe["seq_len"]))
    return tokens / (machine.tokens_per_s.get(preset) or ASSUMED_TOKENS_PER_S.get(preset, 100.0)), tokens


def shortened(recipe: dict[str, Value], share: float) -> tuple[dict[str, Value], list[str]]:
    """The recipe with fewer steps, and what is said of it."""
    steps = int(recipe["num_steps"])
    left = max(1, int(steps * share + 1e-9))
    if left == steps:
        return recipe, []
    said = f"{left} steps per run instead of {steps}, so that the study fits into its budget."
    return recipe | {"num_steps": left}, [said]


def setting_name(name: str) -> str:
    """The recipe's name for a setting of the goal. Raises Blocked, with near names, where pre-training has none."""
    known = SETTING_NAMES.get(name, name)
    if known in training.SETTINGS:
        return known
    raise Blocked(
        f"Pre-training has no setting {name!r}.{did_you_mean(known, training.SETTINGS)} "
        f"Settings: {', '.join(training.SETTINGS)}."
    )


def is_fixed(spec: GoalSpec, name: str) -> bool:
    """Whether the goal names a setting's value (also one that trials may leave)."""
    return any(s.name != "seeds" and setting_name(s.name) == name for s in spec.settings)


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
