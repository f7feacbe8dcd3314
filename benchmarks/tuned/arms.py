"""The arms: Nightsmith's proposer with the planner or with moves drawn at random, Optuna's TPE, random search."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil

from benchmarks.tuned.problems import CHECKS, PROBLEMS, Problem, Recipe, train
from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.loops import without_exhausted
from nightsmith.agent.plan import Tunable
from nightsmith.agent.planner import Planner, PlannerConfused
from nightsmith.agent.priors import mended, offered, sound
from nightsmith.agent.proposals import SETTINGS, PastTrial, Proposal, ProposeRequest, SettingState, untried
from nightsmith.agent.pruning import is_behind
from nightsmith.agent.search import Tried, choose_value
from nightsmith.model.planner_server import ensure
from nightsmith.record.digest import canonical_json, sha256

MOST_TRIALS = 12


@dataclass
class Results:
    """Trials that were run, in a file."""

    path: Path
    known: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def __post_init__(self) -> None:
        """Read what there is."""
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.known = {row["key"]: row for row in map(json.loads, lines)}

    def of(self, name: str, recipe: Recipe, seed: int, stops: Callable[[float, float], bool]) -> dict[str, Any]:
        """A trial's result, up to where `stops(share, loss)` ends it; run where so much of it is not known."""
        key = sha256(canonical_json([name, PROBLEMS[name].tokens, sorted(recipe.items()), seed]))[:20]
        known = self.known.get(key)
        for share, loss, seconds in known["checks"] if known else []:
            if share < 1 and stops(share, loss):
                return {**known, "value": None, "seconds": seconds}
        if known is None or known["value"] is None:
            known = {"key": key, "problem": name, "recipe": recipe, "seed": seed, **train(name, recipe, seed, stops)}
            self._keep(known)
        return known

    def decided(self, request: ProposeRequest, planner: Planner) -> dict[str, Any]:
        """The planner's answer to a question, with the seconds that it took; asked where it is not known."""
        key = sha256(canonical_json(["decision", request.digest()]))[:20]
        if key not in self.known:
            server = psutil.Process(ensure().pid)
            before = sum(server.cpu_times()[:2])
            try:
                proposals = asyncio.run(planner.propose(request))[0]
            except PlannerConfused:
                proposals = []
            row = {"key": key, "seconds": sum(server.cpu_times()[:2]) - before,
                   "proposals": [each.model_dump(mode="json") for each in proposals]}  # fmt: skip
            self._keep(row)
        return self.known[key]

    def _keep(self, row: dict[str, Any]) -> None:
        self.known[row["key"]] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


@dataclass
class Run:
    """One arm on one problem with one seed."""

    name: str
    seed: int
    results: Results
    seconds: float = 0.0
    choosing_s: float = 0.0
    trials: int = 0
    pruned: int = 0
    arrived: bool = False

    @property
    def problem(self) -> Problem:
        """What is tuned."""
        return PROBLEMS[self.name]

    def pay(self, seconds: float, *, choosing: bool = False) -> None:
        """Add seconds."""
        self.seconds += seconds
        self.choosing_s += seconds * choosing

    def tried(self, recipe: Recipe, stops: Callable[[float, float], bool]) -> float | None:
        """Run a trial; null where `stops(share, loss)` ended it early. Its cost counts either way."""
        found = self.results.of(self.name, recipe, self.seed, stops)
        self.trials += 1
        self.pay(found["seconds"])
        if found["value"] is None:
            self.pruned += 1
        else:
            self.arrived = self.problem.reached(found["value"])
        return found["value"]

    @property
    def is_over(self) -> bool:
        """Whether it arrived, or may try no more."""
        return self.arrived or self.trials >= MOST_TRIALS


def sampled(run: Run, *, tpe: bool, told: bool = False) -> None:
    """Optuna: TPE with the median pruner, or random; the base recipe is its first trial, if told the sound one next."""
    seed = int(sha256(f"{run.name} {run.seed}")[:8], 16)  # the same draws for every problem would be one sample
    sampler = optuna.samplers.TPESampler(seed=seed) if tpe else optuna.samplers.RandomSampler(seed=seed)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1) if tpe else optuna.pruners.NopPruner()
    direction = "maximize" if run.problem.sign > 0 else "minimize"
    study = optuna.create_study(direction=direction, sampler=sampler, pruner=pruner)
    study.enqueue_trial({each.name: run.problem.base[each.name] for each in run.problem.space})
    if told:
        sound_one = run.problem.base | mended(run.problem.recipe(run.problem.base), run.problem.space, ())
        study.enqueue_trial({each.name: sound_one[each.name] for each in run.problem.space})
    while not run.is_over:
        begun = time.process_time()
        trial = study.ask({each.name: _distribution(each) for each in run.problem.space})
        recipe = {**run.problem.base, **trial.params}
        run.pay(time.process_time() - begun, choosing=True)

        def stops(share: float, loss: float, trial: Any = trial) -> bool:
            trial.report(-loss * run.problem.sign if run.problem.sign > 0 else loss, round(share * CHECKS))
            return bool(trial.should_prune())

        value = run.tried(recipe, stops)
        study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.PRUNED)


def _distribution(tunable: Tunable) -> Any:
    if tunable.kind == "choice":
        return optuna.distributions.CategoricalDistribution(tunable.choices)
    return optuna.distributions.FloatDistribution(tunable.low or 0.0, tunable.high or 0.0, log=tunable.log)


@dataclass
class Nightsmith:
    """The product's own pieces in the order that a study uses them: planner, search, pruning; judged by the noise."""

    run: Run
    planner: Planner | None
    """Null: moves are drawn at random from those that the planner may choose among."""
    tried: list[Tried] = field(default_factory=list[Tried])
    history: list[PastTrial] = field(default_factory=list[PastTrial])
    failed: list[Tried] = field(default_factory=list[Tried])
    """Pruned trials."""
    curves: list[list[tuple[float, float]]] = field(default_factory=list[list[tuple[float, float]]])

    def __post_init__(self) -> None:
        """Where moves are drawn from."""
        self.best, self.best_gain = dict(self.run.problem.base), 0.0
        self.draw = random.Random(f"{self.run.name} {self.run.seed}")
        self.baseline = 0.0

    def go(self) -> None:
        """From the baseline to the threshold."""
        self.baseline = self._run(self.run.problem.base) or 0.0
        while not self.run.is_over:
            begun = time.process_time()
            change = self._change()
            self.run.pay(time.process_time() - begun, choosing=True)
            if change is None:
                return
            name, value = change
            recipe = {**self.best, **self._mended(), name: value}
            self._judge(recipe, name, self._run(recipe))

    def _mended(self) -> Recipe:
        problem = self.run.problem
        return mended(problem.recipe(self.best), problem.space, [one.recipe for one in self.ever])

    def _run(self, recipe: Recipe) -> float | None:
        seen: list[tuple[float, float]] = []

        def stops(share: float, loss: float) -> bool:
            if not seen or share > seen[-1][0]:
                seen.append((share, loss))
            return is_behind(seen, self.curves)

        value = self.run.tried(recipe, stops)
        if value is not None:
            self.curves.append(seen)
            self.tried.append(Tried(recipe, value))
        return value

    def _request(self) -> ProposeRequest:
        names = [each.name for each in self.run.problem.space]
        states = tuple(
            SettingState(name=name, value=self.best[name], tried=tuple(self._values(name))) for name in names
        )
        word = ">=" if self.run.problem.sign > 0 else "<="
        return ProposeRequest(
            objective=f"{self.run.problem.metric} {word} {self.run.problem.threshold:g}", settings=states,
            history=tuple(self.history), trials_left=MOST_TRIALS - self.run.trials,
            must_go_on=True,
        )  # fmt: skip

    def _values(self, name: str) -> list[Any]:
        return [one.recipe[name] for one in self.tried[1:] if one.recipe[name] != self.run.problem.base[name]]

    def _change(self) -> tuple[str, Any] | None:
        request = offered(without_exhausted(self._request()), self.run.problem.recipe(self.best))
        for proposal in [*self._moves(request), *untried(request)]:
            value = self._value(proposal) if proposal.setting else None
            if value is not None and proposal.setting:
                return proposal.setting, value
        return None

    def _moves(self, request: ProposeRequest) -> list[Proposal]:
        if self.planner is None:
            return _any(request, self.draw)
        known = self.run.results.decided(request, self.planner)
        self.run.pay(known["seconds"], choosing=True)
        return [Proposal.model_validate(each) for each in known["proposals"]]

    def _value(self, proposal: Proposal) -> Any:
        tunable = next((each for each in self.run.problem.space if each.name == proposal.setting), None)
        if tunable is None:
            return None
        others = {key: value for key, value in self.best.items() if key != tunable.name}
        alike = [
            one.recipe for one in self.ever if {k: v for k, v in one.recipe.items() if k != tunable.name} == others
        ]
        return choose_value(
            tunable, proposal.direction or "tune", self.best[tunable.name], self.tried,
            lower_is_better=self.run.problem.sign < 0, seed=self.run.seed * 1000 + self.run.trials,
            taken=[recipe[tunable.name] for recipe in alike],
            sound=sound(self.run.problem.recipe(self.best)).get(tunable.name),
        )  # fmt: skip

    @property
    def ever(self) -> list[Tried]:
        """Judged trials and pruned ones."""
        return [*self.tried, *self.failed]

    def _judge(self, recipe: Recipe, name: str, value: float | None) -> None:
        new, before = recipe[name], self.best[name]
        is_number = isinstance(new, int | float) and isinstance(before, int | float)
        way = ("raise" if new > before else "lower") if is_number else "tune"
        gain = None if value is None else self.run.problem.sign * (value - self.baseline)
        decision = "rejected"
        if gain is None:
            self.failed.append(Tried(recipe, float("nan")))
        else:
            noise = 2 * self.run.problem.noise
            decision = "promising" if gain > noise else "rejected" if gain < -noise else "inconclusive"
            if decision == "promising" and gain > self.best_gain:
                self.best, self.best_gain = recipe, gain
        self.history.append(
            PastTrial(number=len(self.history) + 1, setting=name, direction=way, gain=gain, decision=decision)  # pyright: ignore[reportArgumentType]
        )


def _any(request: ProposeRequest, draw: random.Random) -> list[Proposal]:
    """Every open change, in random order."""
    changes = list(request.open_changes())
    draw.shuffle(changes)
    return [Proposal(move=SETTINGS[name], setting=name, direction=way) for name, way in changes]  # pyright: ignore[reportArgumentType]


ARMS = ("nightsmith", "no moves", "tpe", "random", "told tpe")
"""`told tpe` gets the sound recipe as its second trial: what the priors alone are worth."""


def measured(arm: str, name: str, seed: int, results: Results) -> Run:
    """One arm's run."""
    run = Run(name, seed, results)
    if arm in ("tpe", "random", "told tpe"):
        sampled(run, tpe=arm != "random", told=arm == "told tpe")
    else:
        Nightsmith(run, Planner(ChatBackend()) if arm == "nightsmith" else None).go()
    return run
