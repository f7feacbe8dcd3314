"""Proposals: what the planner is shown of a study, what it may answer, and what the answer means."""

from typing import Any, Literal, get_args

from pydantic import Field

from nightsmith.agent.plan import Move
from nightsmith.agent.wire import Wire
from nightsmith.agent.wire_error import WireError
from nightsmith.record.digest import Contract

Direction = Literal["raise", "lower", "tune"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Decision = Literal["promising", "rejected", "inconclusive", "failed", "promoted"]

SETTINGS: dict[str, Move] = {
    "learning_rate": "hyperparameters",
    "batch_size": "hyperparameters",
    "warmup_share": "hyperparameters",
    "weight_decay": "hyperparameters",
    "beta2": "hyperparameters",
    "schedule": "hyperparameters",
    "router_aux_loss_coef": "hyperparameters",
    "lora_rank": "hyperparameters",
    "lora_alpha": "hyperparameters",
    "max_len": "hyperparameters",
    "adaptation": "hyperparameters",
    "beta": "hyperparameters",
    "num_generations": "hyperparameters",
    "temperature": "hyperparameters",
    "num_experts": "architecture",
    "top_k": "architecture",
    "num_layers": "architecture",
    "hidden_size": "architecture",
    "num_steps": "scale",
    "seed": "seed",
}
"""Settings that a trial may change, and the kind of move that it is; `seed` repeats a recipe."""
HYPOTHESES: dict[str, str] = {
    "faster": "A short run has not converged; changing {setting} ({direction}) lets it learn more in the same tokens.",
    "updates": "Changing {setting} ({direction}) gives more, smaller updates from the same tokens.",
    "steadier": "Changing {setting} ({direction}) makes the updates less noisy.",
    "capacity": "Changing {setting} ({direction}) gives the model more capacity for this data.",
    "lighter": "Changing {setting} ({direction}) leaves fewer weights to learn from the same tokens.",
    "balance": "Changing {setting} ({direction}) spreads the tokens more evenly over the experts.",
    "decay": "Changing {setting} ({direction}) changes how the rate or the weights decay towards the end of the run.",
    "longer": "Changing {setting} ({direction}) trains on more tokens.",
    "milder": "Changing {setting} ({direction}) keeps the model closer to what it knew.",
    "whole_rows": "Changing {setting} ({direction}) changes how many rows are seen whole.",
    "continue": "Changing {setting} ({direction}) helped before; go further the same way.",
    "reverse": "The opposite change of {setting} hurt; try {direction}.",
}
"""Reasons by id; the sentences are rendered by code."""


SEARCHED = "The planner gave no usable proposal; the search tries a change that is still open."


class SettingState(Contract):
    """A setting of the recipe as it stands."""

    name: str
    """Setting."""
    value: float | int | str
    """Current value."""
    tried: tuple[float | int | str, ...] = ()
    """Values tried in this study."""


class PastTrial(Contract):
    """One trial as the planner sees it; its figures come from the record."""

    number: int
    """Trial number."""
    setting: str | None
    """Setting that was changed."""
    direction: Direction | None
    """Which way."""
    gain: float | None
    """Change of the objective against the baseline, positive is better; null: no result."""
    decision: Decision
    """What the judge said."""
    meets_target: bool = False
    """Whether the estimate meets the target on the dev split."""
    dead_experts: int = 0
    """Experts, of all layers, that no token chose at the end of the run."""

    @property
    def line(self) -> str:
        """The trial's line in the prompt."""
        result = "" if self.gain is None else f" {'better' if self.gain >= 0 else 'worse'} {abs(self.gain):.3g}"
        met = " meets target" if self.meets_target else ""
        dead = f" {self.dead_experts} dead experts" if self.dead_experts else ""
        return f"{self.number} {self.setting} {self.direction}{result} {self.decision}{met}{dead}"


class ProposeRequest(Contract):
    """What the planner is asked: the next trials of a study."""

    objective: str
    """The target in words, e.g. `bits_per_byte <= -0.15 difference to baseline`."""
    settings: tuple[SettingState, ...]
    """The recipe's settings."""
    history: tuple[PastTrial, ...] = ()
    """Trials so far."""
    trials_left: int = Field(ge=0)
    """Trials that the budget still allows."""
    k: int = Field(default=1, ge=1, le=8)
    """Proposals wanted at most."""
    must_go_on: bool = False
    """Whether no trial meets the target's threshold yet: ends are not offered while trials and changes are left."""
    data: tuple[str, ...] = ()
    """What the build of the training data found, in short words: duplicates, leaks, lengths."""
    barred: tuple[tuple[str, Direction], ...] = ()
    """(setting, direction) pairs that a person wants left alone."""
    not_offered: tuple[tuple[str, Direction], ...] = ()
    """(setting, direction) pairs that are not offered; a planner that names one all the same is heeded."""

    def hurt(self) -> frozenset[tuple[str, str]]:
        """(setting, direction) pairs that were tried and did not help, or are to be left alone."""
        return frozenset(self.barred) | frozenset(
            (trial.setting, trial.direction)
            for trial in self.history
            if trial.setting and trial.direction and trial.decision in ("rejected", "failed")
        )

    def open_changes(self) -> tuple[tuple[str, Direction], ...]:
        """(setting, direction) pairs that may still be proposed."""
        names = [state.name for state in self.settings if state.name in SETTINGS]
        closed = self.hurt() | frozenset(self.not_offered)
        return tuple((name, way) for name in names for way in DIRECTIONS if (name, way) not in closed)


class Proposal(Contract):
    """One proposed trial."""

    move: Move
    """Kind of move."""
    setting: str | None = None
    """Setting to change; null for `confirm` and `stop`."""
    direction: Direction | None = None
    """Which way; `tune` leaves it to the search."""
    hypothesis: str = ""
    """Why it should help; rendered by code from the reason that the planner chose."""
    alone: bool = False
    """Whether nothing else may change with it."""


def schema(k: int, changes: tuple[tuple[str, Direction], ...] | None = None, *, may_end: bool = True) -> dict[str, Any]:
    """JSON schema of an answer: k changes, so that no device idles, or one end.

    With `changes`, only those (setting, direction) pairs may be chosen; none leaves the end.
    """
    ends = _object({"mv": {"enum": ["confirm", "stop"]}})
    items = (
        [_change(SETTINGS, DIRECTIONS)]
        if changes is None
        else [_change((name,), _ways(changes, name)) for name in dict(changes)]
    )
    changing = [_array({"anyOf": items}, k)] if items else []
    ending = [_array(ends, 1)] if may_end or not items else []
    return _object({"t": {"anyOf": [*changing, *ending]}})


def _array(items: dict[str, Any], number: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": number, "maxItems": number}


def _change(names: Any, ways: tuple[str, ...]) -> dict[str, Any]:
    moves = list(dict.fromkeys(SETTINGS[name] for name in names))
    return _object(
        {
            "mv": {"enum": moves},
            "set": {"enum": list(names)},
            "dir": {"enum": list(ways)},
            "why": {"enum": list(HYPOTHESES)},
        }
    )


def _ways(changes: tuple[tuple[str, Direction], ...], name: str) -> tuple[str, ...]:
    return tuple(direction for setting, direction in changes if setting == name)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def expand(wire: Wire, request: ProposeRequest) -> list[Proposal]:
    """Proposals of an answer. WireError names what cannot stand: an unknown setting, a change that already failed."""
    parts = wire.get("t")
    if not isinstance(parts, list) or not parts:
        raise WireError("t: must list at least one proposal.")
    known = {"seed", *(state.name for state in request.settings)}
    found = [_proposal(part, known, request.hurt()) for part in parts[: request.k]]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    moves = {proposal.move for proposal in found}
    if "confirm" in moves and not any(trial.decision == "promising" for trial in request.history):
        raise WireError("mv: no trial is promising, so there is nothing to confirm; propose a change, or stop.")
    if "stop" in moves and not request.history:
        raise WireError("mv: no trial was run yet; propose a change.")
    return found


def _proposal(part: Any, known: set[str], hurt: frozenset[tuple[str, str]]) -> Proposal:
    move, setting, direction, why = (part.get(key) for key in ("mv", "set", "dir", "why"))
    if move in ("confirm", "stop"):
        return Proposal(move=move)
    if setting not in known:
        raise WireError(f"set: {setting!r} is not a setting of this recipe ({', '.join(sorted(known))}).")
    if SETTINGS.get(setting) != move:
        raise WireError(f"mv: {setting} is a move of kind {SETTINGS.get(setting)!r}, not {move!r}.")
    if (setting, direction) in hurt:
        raise WireError(f"{setting} {direction} was tried and did not help; propose another change, or stop.")
    if why not in HYPOTHESES or direction not in DIRECTIONS:
        raise WireError(f"dir must be raise, lower or tune and why one of {', '.join(HYPOTHESES)}.")
    return Proposal(
        move=move,
        setting=setting,
        direction=direction,
        hypothesis=HYPOTHESES[why].format(setting=setting, direction=direction),
    )


def untried(request: ProposeRequest) -> list[Proposal]:
    """What the search proposes where no answer of the planner can be used, and says so.

    First settings that no trial has changed yet, then every other change that is open.
    """
    fresh = [s.name for s in request.settings if not s.tried]
    changes = sorted(request.open_changes(), key=lambda change: (change[0] not in fresh, change[1] != "tune"))
    return [Proposal(move=SETTINGS[name], setting=name, direction=way, hypothesis=SEARCHED) for name, way in changes]
