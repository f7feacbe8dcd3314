"""How a model that exists is trained on, by sft, dpo or grpo: stages and recipes. What it takes: `sft_costs`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nightsmith.agent import figures, planning_pretrain
from nightsmith.agent.fitting import Blocked
from nightsmith.agent.goal import DataRole, GoalSpec
from nightsmith.agent.looking import TEMPLATE_TOKENS, Look, begins_at_random
from nightsmith.agent.methods import ANY_SETTINGS, METHODS, SPACE, Method, Rows, roles_of, rows_of
from nightsmith.agent.plan import Tunable
from nightsmith.tools import finetuning, registry
from nightsmith.tools.arguments import did_you_mean
from nightsmith.tools.base import ToolCall
from nightsmith.tools.finetuning import Tuning
from nightsmith.tools.training import Value

LORA_FROM_PARAMS = 2e7
"""Models of fewer weights are trained whole."""
EPOCHS, EPOCHS_OF_GENERATED = 3, 1
"""Passes over the rows; a generator's rows are all different already."""
ROWS_FOR_ONE_EPOCH = 20_000
"""From so many rows on one pass is planned."""
SHARE_FOR_ANSWER, LEAST_BYTES_PER_TOKEN = 0.25, 2.0
"""Of a model's context, kept for generated answers; and bytes of a token at least, in most languages."""
LEAST_LEN, LONGEST_LEN, TEXT_LEN = 128, 2048, 256
"""Longest row in tokens: of conversations by their longest, of texts, which are cut."""
REWARDS = {"exact": "exact_match", "unit_tests": "unit_tests", "command": "command"}
"""Kinds of reward that a goal may ask for, by their names in the tool."""
SETTING_NAMES = {
    "steps": "num_steps", "lr": "learning_rate", "rank": "lora_rank", "r": "lora_rank", "alpha": "lora_alpha",
    "warmup": "warmup_share", "seq_len": "max_len", "context": "max_len", "max_length": "max_len", "epochs": "epochs",
    "group_size": "num_generations", "generations": "num_generations", "rollouts": "num_generations", "kl": "beta",
    "clip": "epsilon",
}  # fmt: skip
"""A goal's words for settings; epochs become steps."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    tool: Literal["pretrain", "sft", "dpo", "grpo"]
    rows: Rows
    """As what its data are read."""
    refs: tuple[str, ...]
    """Sources of its training data."""
    recipe: dict[str, Value]
    """Settings of its training call."""
    num_rows: float = 0.0
    """Rows that it may train on."""


def stages_of(spec: GoalSpec, look: Look, held_out: float) -> tuple[tuple[Stage, ...], list[str]]:
    """The stages of a run at full length, and the assumptions behind them.

    Args:
        spec: the goal.
        look: data and model.
        held_out: share of the rows that no stage trains on.

    Raises:
        Blocked: a stage has no data, or a setting has no meaning.
        ToolError: a setting is out of range.
    """
    said: list[str] = []
    found: list[Stage] = []
    for index, method in enumerate(spec.methods):
        rows = rows_of(method)
        refs = sources_of(spec, look, index)
        if index == 0 and begins_at_random(spec):
            recipe, told = planning_pretrain.baseline_recipe(_first_settings(spec))
            found.append(Stage("pretrain", rows, refs, recipe))
        else:
            num_rows = (1 - held_out) * sum(_num_rows(spec, look, ref, rows) for ref in refs)
            trained = METHODS.get(method, METHODS["sft"])  # a model that exists is pre-trained as it is fine-tuned
            recipe, told = _recipe(spec, look, trained, refs, rows, num_rows, starts=not found)
            found.append(Stage(trained.name, rows, refs, recipe, num_rows))
            if method == "sft" and not set(refs) & set(_meant(spec, index, "train")):
                told = [*told, f"No data are named for fine-tuning: it trains on the chosen answers of {refs[0]}."]
        said += [each for each in told if each not in said]
    return tuple(found), said


def sources_of(spec: GoalSpec, look: Look, index: int) -> tuple[str, ...]:
    """Training data of one stage: what names it, and what names none and can be used. Raises Blocked without any."""
    method = spec.methods[index]
    meant = [ref for role in roles_of(method) for ref in _meant(spec, index, role)]
    for data in (d for d in spec.data if d.role in roles_of(method) and d.stage == index):
        if problem := problem_with(look, data.ref, method):
            raise Blocked(problem)
    for role in roles_of(method):
        if usable := [ref for ref in _meant(spec, index, role) if not problem_with(look, ref, method)]:
            return tuple(dict.fromkeys(usable))
    if meant:
        raise Blocked(problem_with(look, meant[0], method))
    raise Blocked(f"Stage {index + 1} ({method}) has no data to train on. Name some for it.")


def _meant(spec: GoalSpec, index: int, role: DataRole) -> list[str]:
    return [data.ref for data in spec.data if data.role == role and data.stage in (None, index)]


def problem_with(look: Look, ref: str, method: str) -> str:
    """Why a method cannot use a source; empty where it can."""
    seen = look.of(ref)
    if rows_of(method) == "text":
        return ""
    if seen.is_text:
        what, other = ("pairs of answers", "") if method == "dpo" else ("prompts and answers", ", or pre-train on it")
        return f"{ref!r} is text without {what}. Give a CSV, JSONL or parquet file{other}."
    return seen.pairs_problem if method == "dpo" else seen.problem


def _num_rows(spec: GoalSpec, look: Look, ref: str, rows: str) -> float:
    """Rows of a source as a stage reads them: texts are cut into rows of the longest length."""
    seen = look.of(ref)
    asked = next((s.amount for s in spec.pipeline if s.step == "sample" and s.amount and s.unit == "rows"), math.inf)
    if rows == "text":
        return max(1.0, seen.num_bytes / look.model.size.bytes_per_token / TEXT_LEN)
    return min(seen.num_rows, asked)


def _first_settings(spec: GoalSpec) -> GoalSpec:
    """The goal with the settings of its pre-training alone, where a fine-tuning follows that knows the others."""
    if len(spec.methods) == 1:
        return spec
    own = tuple(s for s in spec.settings if SETTING_NAMES.get(s.name, s.name) not in ANY_SETTINGS)
    return spec.model_copy(update={"settings": own})


def _recipe(
    spec: GoalSpec,
    look: Look,
    method: Method,
    refs: Sequence[str],
    rows: Rows,
    num_rows: float,
    *,
    starts: bool,
) -> tuple[dict[str, Value], list[str]]:
    """Settings of one fine-tuning stage at full length. Raises Blocked or ToolError."""
    asked: dict[str, Any] = {}
    for setting in spec.settings:
        if setting.name != "seeds" and not _belongs_to_another(spec, method, setting.name):
            asked[setting_name(setting.name, method)] = setting.value
    adaptation, said = _adaptation(spec, look)
    epochs = asked.pop("epochs", None)
    own: dict[str, Any] = {"sft": {"rows": rows}, "dpo": {}, "grpo": _reward(spec)}[method.name]
    if method.name == "sft" and rows == "chat" and adaptation == "lora":
        own |= look.sft
    args: dict[str, Any] = {"adaptation": adaptation, **own, "max_len": max_len(look, refs, rows)} | asked
    args["model"] = look.model.name if starts else "$previous"
    if args["adaptation"] == "full" and look.model.size.num_params < LORA_FROM_PARAMS:
        args.setdefault("learning_rate", method.small_rate)
    chosen = registry.validate(ToolCall(tool=method.name, args=args))
    assert isinstance(chosen, Tuning)
    if "num_steps" not in asked:
        passes = float(epochs) if epochs is not None else _epochs(look, refs, num_rows)
        steps = max(1, math.ceil(passes * num_rows / chosen.batch_size))
        chosen = chosen.model_copy(update={"num_steps": steps})
        if epochs is None:
            times = "one pass" if passes == 1 else f"{passes:g} passes"
            said.append(f"Neither epochs nor steps are named: {times} over about {num_rows:.0f} rows.")
    return {"model": chosen.model, **own, **finetuning.recipe(chosen)}, said


def _reward(spec: GoalSpec) -> dict[str, Value]:
    """What the goal asks answers to be paid for, as arguments of the tool. Raises Blocked."""
    if spec.reward is None:
        return {}
    if spec.reward.kind not in REWARDS:
        known = ", ".join(REWARDS)
        raise Blocked(f"A reward of kind {spec.reward.kind!r} cannot be given yet; possible are {known}.")
    file = {"reward_file": spec.reward.ref or ""} if spec.reward.kind == "command" else {}
    return {"reward": REWARDS[spec.reward.kind], **file}


def _belongs_to_another(spec: GoalSpec, method: Method, name: str) -> bool:
    """Whether a setting is that of another stage: only pre-training has it, or preferences or rewards come after."""
    known = SETTING_NAMES.get(name, name)
    return (begins_at_random(spec) and known not in ANY_SETTINGS) or (
        method.name == "sft" and spec.methods[-1] in ("dpo", "grpo") and known in ANY_SETTINGS
    )


def _adaptation(spec: GoalSpec, look: Look) -> tuple[Literal["full", "lora"], list[str]]:
    if spec.adaptation == "full" or "lora" in spec.avoid:
        return "full", []
    if spec.adaptation == "lora":
        return "lora", []
    if begins_at_random(spec):
        return "full", []
    weights = figures.count(look.model.size.num_params)
    if look.model.size.num_params < LORA_FROM_PARAMS:
        return "full", [f"No adaptation is named: every weight is trained, as there are only {weights}."]
    return "lora", [f"No adaptation is named: LoRA, as the model has {weights} weights."]


def _epochs(look: Look, refs: Sequence[str], num_rows: float) -> float:
    if any(look.of(ref).is_generated for ref in refs):
        return EPOCHS_OF_GENERATED
    return EPOCHS if num_rows < ROWS_FOR_ONE_EPOCH else 1


def max_len(look: Look, refs: Sequence[str], rows: str) -> int:
    """Tokens of a row at most: room for the longest one of the sample, half as long again; texts are cut."""
    most = min(LONGEST_LEN, look.model.size.max_len or LONGEST_LEN)
    if rows == "text":
        return min(most, TEXT_LEN)
    needed = 1.5 * max(look.tokens(look.of(ref).longest_bytes) for ref in refs)
    return max(LEAST_LEN, min(most, 64 * math.ceil(needed / 64)))


def most_bytes(look: Look | None) -> int | None:
    """Longest conversation in bytes that surely fits into the model's context with an answer; None: not known."""
    if look is None or (longest := look.model.size.max_len) is None:
        return None
    size = look.model.size
    room = longest * (1 - SHARE_FOR_ANSWER) - TEMPLATE_TOKENS * size.has_chat_template
    return max(1, int(room * (1 if size.is_byte_level else LEAST_BYTES_PER_TOKEN)))


def setting_name(name: str, method: Method) -> str:
    """The recipe's name for a setting of the goal. Raises Blocked, with near names, where the method has none."""
    known, allowed = SETTING_NAMES.get(name, name), method.settings
    if known in allowed:
        return known
    near = did_you_mean(known, allowed)
    raise Blocked(f"{method.noun.capitalize()} has no setting {name!r}.{near} Settings: {', '.join(allowed)}.")


def tunables(spec: GoalSpec, last: Stage) -> tuple[Tunable, ...]:
    """The search space of the last stage: without what the goal fixes or forbids, and what has no meaning.

    Trials are compared at equal rows, so that fixed steps fix the batch size.
    """
    method = METHODS[last.tool]
    fixed = {SETTING_NAMES.get(s.name, s.name) for s in spec.settings if s.how == "fixed"}
    fixed |= {SETTING_NAMES.get(name, name) for name in spec.avoid} | (
        {"batch_size"} if "num_steps" in fixed else set()
    )
    low, high = method.rates[str(last.recipe["adaptation"])]
    rate = Tunable(name="learning_rate", kind="float", low=low, high=high, log=True)
    return tuple(t for t in (rate, *SPACE, *method.own_space) if t.name in last.recipe and t.name not in fixed)


def is_length_fixed(spec: GoalSpec) -> bool:
    """Whether the goal names how long a run is."""
    return any(SETTING_NAMES.get(s.name, s.name) in ("num_steps", "epochs") for s in spec.settings)


def shortened(stages: Sequence[Stage], share: float) -> tuple[tuple[Stage, ...], list[str]]:
    """The stages with fewer steps, and what is said of it."""
    if share >= 1:
        return tuple(stages), []
    found: list[Stage] = []
    for stage in stages:
        steps = max(1, int(int(stage.recipe["num_steps"]) * share + 1e-9))
        found.append(Stage(stage.tool, stage.rows, stage.refs, stage.recipe | {"num_steps": steps}, stage.num_rows))
    before = " and ".join(str(stage.recipe["num_steps"]) for stage in stages)
    after = " and ".join(str(stage.recipe["num_steps"]) for stage in found)
    return tuple(found), [f"{after} steps per run instead of {before}, so that the study fits into its budget."]
