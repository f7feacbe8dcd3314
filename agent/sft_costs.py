"""What it takes to train on a model that exists: speeds, measured or assumed from its size, seconds, tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from nightsmith.agent import figures, planning_pretrain
from nightsmith.agent.fitting import Costs, Fitted, Machine, fit, seeds_per_side
from nightsmith.agent.goal import GoalSpec
from nightsmith.agent.looking import Look
from nightsmith.agent.planning_sft import Stage, is_length_fixed

MIN_STEPS, STEPS_WORTH_CONFIRMING = 10, 100
ASSUMED_FLOPS_PER_S = {"cpu": 6e10, "cuda": 5e13}
"""One thread of a server's CPU in float32; a small part of what an accelerator can do. Measured speeds replace it."""
FLOPS_PER_WEIGHT = {"full": 6.0, "lora": 4.0}
FORWARD_FLOPS_PER_WEIGHT = 2.0
"""Operations per token and weight: two forward, two each for the gradients of activations and of weights."""
TRAINING_GAIN = 2.0
"""Training multiplies in bfloat16 where it is faster, evaluation in float32."""
START_S, EVALUATION_START_S = 15.0, 10.0
"""Start of a job: imports, loading, tokenising, saving."""
GENERATION_FACTOR = 2.0
"""A generated token costs so many times one that is read."""
SPARE_TOKENS = 8.0
"""An unmodified model that does not stop by itself writes so many tokens more than the mean answer has."""
EVALUATION_S, LEAST_ITEMS, MOST_ITEMS = 60.0, 64, 256
"""Dev items are as many as are evaluated in about so many seconds."""


@dataclass(frozen=True)
class Speeds:
    """Tokens per second of one device."""

    train: float
    """Trained."""
    forward: float
    """Read."""
    basis: str
    """What they rest on."""


def speeds(machine: Machine, look: Look, stages: Sequence[Stage]) -> Speeds:
    """Speeds of the model: measured where this machine has trained it, else from its size."""
    first, adaptation = stages[0], str(stages[-1].recipe["adaptation"])
    if first.tool == "pretrain":
        preset = str(first.recipe["preset"])
        train = machine.tokens_per_s.get(preset) or planning_pretrain.ASSUMED_TOKENS_PER_S.get(preset, 100.0)
        return Speeds(train, 3 * train, machine.basis(preset, planning_pretrain.ASSUMED))
    weights, digest = look.model.size.num_params, look.model.ref.weights_digest if look.model.ref else ""
    flops = ASSUMED_FLOPS_PER_S["cuda" if machine.gpus else "cpu"]
    assumed = f"assumed speed for {figures.count(weights)} weights"
    measured = machine.tokens_per_s.get(digest)
    train = measured or flops / (FLOPS_PER_WEIGHT[adaptation] * weights)
    forward = train * FLOPS_PER_WEIGHT[adaptation] / FORWARD_FLOPS_PER_WEIGHT / (TRAINING_GAIN if measured else 1.0)
    return Speeds(train, forward, machine.basis(digest, assumed + ("" if digest else "; nobody looked at the data")))


def fitted(spec: GoalSpec, machine: Machine, look: Look, stages: Sequence[Stage]) -> Fitted:
    """What of the stages, at full length, fits into the budget. Raises Blocked.

    A model that exists is the baseline as it is; one that the first stage trains has a baseline with seeds.
    """
    speed, items = speeds(machine, look, stages), dev_items(machine, look, stages)
    seconds, tokens = zip(*(_training(machine, look, stage, speed) for stage in stages), strict=True)
    evaluate_s = items * item_s(look, stages[-1], speed)
    costs = Costs(
        devices=machine.devices, seeds=seeds_per_side(spec, machine.devices), train_s=sum(seconds), tokens=sum(tokens),
        fixed_s=len(stages) * START_S + evaluate_s, sealed_s=EVALUATION_START_S + 2 * evaluate_s,
        reference_s=EVALUATION_START_S + evaluate_s if stages[0].tool != "pretrain" else None,
    )  # fmt: skip
    steps = min(int(stage.recipe["num_steps"]) for stage in stages)
    least = 1.0 if is_length_fixed(spec) else min(1.0, MIN_STEPS / steps)
    has_threshold = any(target.value is not None for target in spec.targets)
    worth = max(least, min(1.0, STEPS_WORTH_CONFIRMING / steps)) if has_threshold else least
    return fit(spec, machine, costs, least=least, worth_confirming=worth, basis=speed.basis)


def _training(machine: Machine, look: Look, stage: Stage, speed: Speeds) -> tuple[float, float]:
    """Seconds and tokens of one stage at full length. Of pairs both answers are trained, and read by the reference."""
    if stage.tool == "pretrain":
        return planning_pretrain.training_cost(machine, stage.recipe)
    tokens = float(stage.recipe["num_steps"]) * int(stage.recipe["batch_size"]) * _row_tokens(look, stage)
    if stage.tool == "grpo":
        tokens *= int(stage.recipe["num_generations"])
        return tokens / speed.train + GENERATION_FACTOR * tokens / speed.forward, tokens
    if stage.tool == "dpo":
        once = 2 * stage.num_rows * _row_tokens(look, stage)
        return 2 * tokens / speed.train + once / speed.forward, 2 * tokens
    return tokens / speed.train, tokens


def _row_tokens(look: Look, stage: Stage) -> float:
    """Mean tokens of a row: texts fill theirs."""
    longest, looks = float(stage.recipe["max_len"]), [look.of(ref) for ref in stage.refs]
    mean_bytes = sum(seen.num_bytes for seen in looks) / max(1, sum(seen.num_rows for seen in looks))
    return longest if stage.rows == "text" else min(longest, look.tokens(mean_bytes))


def item_s(look: Look, stage: Stage, speed: Speeds) -> float:
    """Seconds to evaluate one item: to read it, with a worse answer too; to read the prompt again, and to write."""
    row = _row_tokens(look, stage)
    if stage.rows == "text":
        return row / speed.forward
    answer = max(look.of(ref).answer_bytes for ref in stage.refs) / look.model.size.bytes_per_token
    read = 3 if stage.rows == "preference" else 2
    return (read * row + GENERATION_FACTOR * (answer + SPARE_TOKENS)) / speed.forward


def dev_items(machine: Machine, look: Look, stages: Sequence[Stage]) -> int:
    """Items of the dev suite."""
    one = item_s(look, stages[-1], speeds(machine, look, stages))
    return max(LEAST_ITEMS, min(MOST_ITEMS, int(EVALUATION_S / one)))
