"""Seeded examples of the propose decision: a study so far, and what a sensible experimenter would try next."""

import random
from typing import Any

from nightsmith.agent.proposals import SETTINGS, Decision, PastTrial, ProposeRequest, SettingState

PRETRAIN_ORDER = (
    ("learning_rate", "raise", "faster"),
    ("batch_size", "lower", "updates"),
    ("num_experts", "lower", "lighter"),
    ("schedule", "tune", "decay"),
    ("warmup_share", "lower", "faster"),
    ("num_layers", "lower", "lighter"),
    ("top_k", "raise", "capacity"),
    ("router_aux_loss_coef", "raise", "balance"),
    ("weight_decay", "lower", "decay"),
    ("beta2", "raise", "steadier"),
    ("hidden_size", "raise", "capacity"),
    ("num_steps", "raise", "longer"),
)
SFT_ORDER = (
    ("learning_rate", "raise", "faster"),
    ("num_steps", "raise", "longer"),
    ("lora_rank", "raise", "capacity"),
    ("batch_size", "lower", "updates"),
    ("schedule", "tune", "decay"),
    ("lora_alpha", "raise", "faster"),
    ("warmup_share", "lower", "faster"),
    ("max_len", "raise", "whole_rows"),
    ("weight_decay", "raise", "milder"),
    ("adaptation", "tune", "capacity"),
)
"""First choices of the two kinds of study, best first."""
REVERSIBLE = frozenset(
    {"learning_rate", "batch_size", "num_experts", "num_layers", "hidden_size", "lora_rank", "lora_alpha"}
)
SFT_VALUES: dict[str, tuple[Any, ...]] = {
    "learning_rate": (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
    "batch_size": (2, 4, 8, 16, 32),
    "num_steps": (50, 100, 200, 400, 800),
    "lora_rank": (4, 8, 16, 32),
    "lora_alpha": (8.0, 16.0, 32.0, 64.0),
    "max_len": (128, 256, 512),
    "schedule": ("cosine", "linear", "constant"),
    "warmup_share": (0.02, 0.05, 0.1),
    "weight_decay": (0.0, 0.05, 0.1),
    "adaptation": ("lora", "full"),
}
SFT_ONLY = frozenset({"lora_rank", "lora_alpha", "max_len", "adaptation"})
VALUES: dict[str, tuple[Any, ...]] = {
    "learning_rate": (3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3),
    "batch_size": (4, 8, 16, 32),
    "num_experts": (4, 8, 16, 32),
    "schedule": ("cosine", "wsd", "constant"),
    "warmup_share": (0.02, 0.05, 0.1),
    "num_layers": (2, 3, 4, 6),
    "top_k": (1, 2, 4),
    "router_aux_loss_coef": (0.0, 0.001, 0.01),
    "weight_decay": (0.0, 0.05, 0.1),
    "beta2": (0.95, 0.98, 0.99),
    "hidden_size": (64, 96, 128, 256),
    "num_steps": (200, 512, 1000, 2000),
}
OBJECTIVES = (
    "bits_per_byte <= -0.15 difference to baseline",
    "bits_per_byte <= -{x} difference to baseline",
    "perplexity < {y}",
    "loss min",
    "bits_per_byte <= {z}",
    "perplexity <= 0.9 ratio to baseline",
    "loss <= -{x} difference to baseline",
    "bits_per_byte min",
    "perplexity <= {y}",
    "bits_per_byte < 0 difference to baseline",
    "perplexity <= -{y} difference to baseline",
    "improve bits_per_byte",
    "perplexity < {y}; loss < {z}",
)
SFT_OBJECTIVES = (
    "exact_match >= {s}",
    "exact_match > {s}",
    "token_f1 >= {s}",
    "exact_match >= {x} difference to baseline",
    "accuracy >= {s}",
    "exact_match max",
    "exact_match >= 2 ratio to baseline",
    "token_f1 > 0 difference to baseline",
    "improve exact_match",
    "exact_match >= {s}; token_f1 >= {s}",
)
OPPOSITE = {"raise": "lower", "lower": "raise"}


def case(r: random.Random) -> tuple[ProposeRequest, dict[str, Any]]:
    """One request with its gold answer."""
    values, objectives = r.choice(((VALUES, OBJECTIVES), (SFT_VALUES, SFT_OBJECTIVES)))
    names = [name for name in values if name in ("learning_rate", "batch_size") or r.random() < 0.6]
    states = tuple(SettingState(name=name, value=r.choice(values[name])) for name in names)
    history = _history(r, names)
    objective = r.choice(objectives).format(
        x=r.choice((0.05, 0.1, 0.2, 0.3)),
        y=r.choice((4, 8, 12, 20)),
        z=r.choice((2.1, 2.8, 3.2)),
        s=r.choice((0.4, 0.6, 0.7, 0.85, 0.9)),
    )
    left = r.choice((0, 1, 1, 2, 2, 3, 4, 6, 8)) if history else r.choice((2, 3, 4, 4, 6, 8))
    request = ProposeRequest(
        objective=objective, settings=states, history=history, trials_left=left, k=r.choice((1, 1, 1, 2, 2, 3))
    )
    return request, {"t": answer(request)}


def _history(r: random.Random, names: list[str]) -> tuple[PastTrial, ...]:
    trials: list[PastTrial] = []
    for number in range(1, r.choices((0, 1, 2, 3, 4, 5, 6), (20, 24, 20, 16, 10, 6, 4))[0] + 1):
        options = _options(tuple(trials), names)
        if not options:
            break
        setting, direction, _ = options[0] if r.random() < 0.6 else r.choice(options)
        decision: Decision = r.choices(("promising", "rejected", "inconclusive", "failed"), (36, 34, 24, 6))[0]
        gain = {
            "promising": r.uniform(0.06, 0.6),
            "rejected": -r.uniform(0.02, 0.8),
            "inconclusive": r.uniform(-0.02, 0.04),
            "failed": None,
        }[decision]
        meets = decision == "promising" and r.random() < 0.4
        trials.append(
            PastTrial(
                number=number,
                setting=setting,
                direction=direction,
                gain=None if gain is None else round(gain, 3),
                decision=decision,
                meets_target=meets,
            )
        )
        if meets and r.random() < 0.7:
            break
    if trials and trials[-1].meets_target and r.random() < 0.25:
        trials[-1] = trials[-1].model_copy(update={"decision": "promoted"})
    return tuple(trials)


def answer(request: ProposeRequest) -> list[dict[str, str]]:
    """What a sensible experimenter proposes."""
    history = request.history
    if any(trial.decision == "promoted" and trial.meets_target for trial in history):
        return [{"mv": "stop"}]
    if any(trial.meets_target and trial.decision == "promising" for trial in history):
        return [{"mv": "confirm"}]
    if request.trials_left == 0:
        return [{"mv": "confirm" if any(trial.decision == "promising" for trial in history) else "stop"}]
    options = _options(history, [state.name for state in request.settings])
    if not options:
        return [{"mv": "stop"}]
    return [
        {"mv": SETTINGS[setting], "set": setting, "dir": direction, "why": why}
        for setting, direction, why in options[: min(request.k, request.trials_left)]
    ]


def _options(history: tuple[PastTrial, ...], names: list[str]) -> list[tuple[str, Any, str]]:
    """Changes worth trying: go on with the best that helped, then what was not tried, then reversals."""
    last = {trial.setting: trial for trial in history}
    gains = sorted(
        (trial for trial in last.values() if trial.decision == "promising"), key=lambda trial: -(trial.gain or 0)
    )
    on = [(str(trial.setting), trial.direction, "continue") for trial in gains[:1]]
    order = SFT_ORDER if SFT_ONLY & set(names) else PRETRAIN_ORDER
    fresh = [option for option in order if option[0] in names and option[0] not in last]
    tried = {(trial.setting, trial.direction) for trial in history}
    back = [
        (str(trial.setting), OPPOSITE[str(trial.direction)], "reverse")
        for trial in last.values()
        if trial.decision == "rejected"
        and trial.setting in REVERSIBLE
        and (trial.setting, OPPOSITE[str(trial.direction)]) not in tried
    ]
    return [*on, *fresh, *back]
