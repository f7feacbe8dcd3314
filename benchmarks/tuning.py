"""Seconds until a threshold is reached: Nightsmith's proposals, the same without the model's moves, Optuna TPE, random.

    python -m benchmarks tuning [--seeds 5] [--problems stdlib,goals,docs] [--cache tuning.jsonl] [--study] [--json out]

Three small pre-trainings on different texts, by different metrics, from recipes whose faults differ. Every arm begins
with the same recipe, whose run it knows and pays for. A trial's result depends on problem, settings and seed alone, so
that arms share it through the cache. Counted are the CPU seconds of the trials, up to where they were pruned, and those
that the arm takes to choose, with all threads of the planner's server. An arm that does not arrive counts with all that
it spent. `--study 8` draws settings at random: a threshold is the second best of eight, of other seeds than the arms'.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import torch
from torch import nn

from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.loops import without_exhausted
from nightsmith.agent.plan import Tunable
from nightsmith.agent.planner import Planner, PlannerConfused
from nightsmith.agent.proposals import SETTINGS, PastTrial, Proposal, ProposeRequest, SettingState, untried
from nightsmith.agent.pruning import is_behind
from nightsmith.agent.search import Tried, choose_value
from nightsmith.model.planner_server import ensure
from nightsmith.model.presets import PRESETS
from nightsmith.model.router import end_step
from nightsmith.model.small4 import build
from nightsmith.record.digest import canonical_json, sha256
from nightsmith.tools.data.resolve import resolve
from nightsmith.trainer.optimizers import make_optimizer
from nightsmith.trainer.pretrain import next_token_loss
from nightsmith.trainer.schedule import learning_rate
from nightsmith.trainer.spec import PretrainSpec
from nightsmith.trainer.text import Windows, pack

ROOT = Path(__file__).parents[1]
SHAPE = PRESETS["nano"].model_copy(update={"num_layers": 1, "num_experts": 4, "seq_len": 64})
MOST_TRIALS = 12
CHECKS = 8
"""Times in a run that its training loss is looked at, for pruning."""
HELD_OUT_WINDOWS = 64
RATE = Tunable(name="learning_rate", kind="float", low=1e-4, high=3e-2, log=True)
BATCH = Tunable(name="batch_size", kind="choice", choices=(4, 8, 16, 32))
WARMUP = Tunable(name="warmup_share", kind="float", low=0.0, high=0.3)
DECAY = Tunable(name="weight_decay", kind="float", low=0.0, high=0.3)
SCHEDULE = Tunable(name="schedule", kind="choice", choices=("constant", "cosine", "wsd"))
Recipe = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is tuned, by what, to where."""

    metric: str
    """`bits_per_byte`, `loss` (nats a byte) or `exact_match` (share of bytes that the model's first choice is)."""
    threshold: float
    tokens: int
    """Training tokens of a trial, whatever its batch size."""
    base: Recipe
    space: tuple[Tunable, ...]
    noise: float
    """Deviation of the metric over seeds at `base`."""

    @property
    def sign(self) -> int:
        """1 where higher is better."""
        return 1 if self.metric == "exact_match" else -1

    def reached(self, value: float) -> bool:
        """Whether the threshold is met."""
        return self.sign * (value - self.threshold) >= 0


COMMON: Recipe = {"warmup_share": 0.05, "weight_decay": 0.1, "schedule": "cosine"}
PROBLEMS = {
    "stdlib": Problem(
        "bits_per_byte", 3.61, 100_000, {**COMMON, "learning_rate": 1e-3, "batch_size": 8},
        (RATE, BATCH, WARMUP, SCHEDULE), 0.009,
    ),
    "goals": Problem(
        "loss", 2.27, 120_000, {**COMMON, "learning_rate": 3e-3, "batch_size": 32}, (RATE, BATCH, DECAY), 0.024
    ),
    "docs": Problem(
        "exact_match", 0.205, 80_000, {**COMMON, "learning_rate": 2e-2, "batch_size": 4, "schedule": "constant"},
        (RATE, BATCH, WARMUP, SCHEDULE), 0.009,
    ),
}  # fmt: skip


@cache
def texts(problem: str) -> tuple[list[bytes], bytes]:
    """Documents to train on, and one held-out text."""
    match problem:
        case "stdlib":
            documents = [file.path.read_bytes() for file in resolve("python-stdlib").files][:200]
        case "goals":
            files = sorted((ROOT / "examples" / "planner").glob("handwritten*.jsonl"))
            lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            documents = [str(line.get("goal") or line.get("text")).encode() for line in lines]
        case _:
            documents = [part for file in sorted((ROOT / "docs").glob("*.md")) for part in _parts(file.read_bytes())]
    held_out = [text for text in documents if int(sha256(text)[:8], 16) % 8 == 0]
    return [text for text in documents if int(sha256(text)[:8], 16) % 8], b"\n".join(held_out)


def _parts(text: bytes) -> list[bytes]:
    return [text[at : at + 2000] for at in range(0, len(text), 2000)]


def train(name: str, recipe: Recipe, seed: int) -> dict[str, Any]:
    """A whole trial: its value, and at every check the training loss, and the CPU seconds so far."""
    problem, (documents, held_out) = PROBLEMS[name], texts(name)
    batch = int(recipe["batch_size"])
    num_steps = max(CHECKS, problem.tokens // (batch * SHAPE.seq_len))
    rest = {key: value for key, value in recipe.items() if key != "batch_size"}
    spec = PretrainSpec(architecture=SHAPE, data="-", data_digest="-", num_steps=num_steps, seed=seed, **rest)
    windows = Windows(pack(documents), SHAPE.seq_len, batch, seed)
    started = time.process_time()
    model = build(SHAPE, seed=seed).train()
    optimizer = make_optimizer(model.parameters(), spec)
    losses: list[float] = []
    checks: list[tuple[float, float, float]] = []
    for step in range(num_steps):
        loss = next_token_loss(model, torch.from_numpy(windows.batch(step)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), spec.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end_step(model)
        losses.append(loss.item())
        if (step + 1) * CHECKS // num_steps > step * CHECKS // num_steps:
            recent = losses[-max(1, num_steps // CHECKS) :]
            checks.append(((step + 1) / num_steps, float(np.mean(recent)), time.process_time() - started))
    value = evaluate(model, held_out, problem.metric)
    return {"value": value, "checks": checks, "seconds": time.process_time() - started}


def evaluate(model: Any, held_out: bytes, metric: str) -> float:
    """The metric on the held-out text's first windows."""
    length = SHAPE.seq_len + 1
    count = min(HELD_OUT_WINDOWS, len(held_out) // length)
    windows = torch.frombuffer(bytearray(held_out[: count * length]), dtype=torch.uint8).view(count, length).long()
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=windows[:, :-1]).logits
    targets = windows[:, 1:]
    if metric == "exact_match":
        return float((logits.argmax(-1) == targets).float().mean())
    loss = float(nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    return loss / float(np.log(2)) if metric == "bits_per_byte" else loss


@dataclass
class Results:
    """Trials that were run, in a file."""

    path: Path
    known: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def __post_init__(self) -> None:
        """Read what there is."""
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.known = {row["key"]: row for row in map(json.loads, lines)}

    def of(self, name: str, recipe: Recipe, seed: int) -> dict[str, Any]:
        """A trial's result; run where it is not known."""
        problem = PROBLEMS[name]
        key = sha256(canonical_json([name, problem.tokens, sorted(recipe.items()), seed]))[:20]
        if key not in self.known:
            self._keep({"key": key, "problem": name, "recipe": recipe, "seed": seed, **train(name, recipe, seed)})
        return self.known[key]

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
        found = self.results.of(self.name, recipe, self.seed)
        self.trials += 1
        for share, loss, seconds in found["checks"][:-1]:
            if stops(share, loss):
                self.pay(seconds)
                self.pruned += 1
                return None
        self.pay(found["seconds"])
        self.arrived = self.problem.reached(found["value"])
        return found["value"]

    @property
    def is_over(self) -> bool:
        """Whether it arrived, or may try no more."""
        return self.arrived or self.trials >= MOST_TRIALS


def sampled(run: Run, *, tpe: bool) -> None:
    """Optuna: TPE with the median pruner, or random; the base recipe is its first trial."""
    sampler = optuna.samplers.TPESampler(seed=run.seed) if tpe else optuna.samplers.RandomSampler(seed=run.seed)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1) if tpe else optuna.pruners.NopPruner()
    direction = "maximize" if run.problem.sign > 0 else "minimize"
    study = optuna.create_study(direction=direction, sampler=sampler, pruner=pruner)
    study.enqueue_trial({each.name: run.problem.base[each.name] for each in run.problem.space})
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
        self.draw = random.Random(self.run.seed)
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
            before = self.best[change[0]]
            self._judge(change, before, self._run({**self.best, change[0]: change[1]}))

    def _run(self, recipe: Recipe) -> float | None:
        seen: list[tuple[float, float]] = []

        def stops(share: float, loss: float) -> bool:
            seen.append((share, loss))
            return is_behind(seen, self.curves)

        value = self.run.tried(recipe, stops)
        if value is not None:
            self.curves.append([(share, loss) for share, loss, _ in self.run.results.of(
                self.run.name, recipe, self.run.seed)["checks"]])  # fmt: skip
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
        )  # fmt: skip

    def _values(self, name: str) -> list[Any]:
        return [one.recipe[name] for one in self.tried[1:] if one.recipe[name] != self.run.problem.base[name]]

    def _change(self) -> tuple[str, Any] | None:
        request = without_exhausted(self._request())
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
        )  # fmt: skip

    @property
    def ever(self) -> list[Tried]:
        """Judged trials and pruned ones."""
        return [*self.tried, *self.failed]

    def _judge(self, change: tuple[str, Any], before: Any, value: float | None) -> None:
        name, new = change
        is_number = isinstance(new, int | float) and isinstance(before, int | float)
        way = ("raise" if new > before else "lower") if is_number else "tune"
        gain = None if value is None else self.run.problem.sign * (value - self.baseline)
        decision = "rejected"
        if gain is None:
            self.failed.append(Tried({**self.best, name: new}, float("nan")))
        else:
            noise = 2 * self.run.problem.noise
            decision = "promising" if gain > noise else "rejected" if gain < -noise else "inconclusive"
            if decision == "promising" and gain > self.best_gain:
                self.best, self.best_gain = {**self.best, name: new}, gain
        self.history.append(
            PastTrial(number=len(self.history) + 1, setting=name, direction=way, gain=gain, decision=decision)  # pyright: ignore[reportArgumentType]
        )


def _any(request: ProposeRequest, draw: random.Random) -> list[Proposal]:
    """Every open change, in random order."""
    changes = list(request.open_changes())
    draw.shuffle(changes)
    return [Proposal(move=SETTINGS[name], setting=name, direction=way) for name, way in changes]  # pyright: ignore[reportArgumentType]


ARMS = ("nightsmith", "no moves", "tpe", "random")


def measured(arm: str, name: str, seed: int, results: Results) -> Run:
    """One arm's run."""
    run = Run(name, seed, results)
    if arm in ("tpe", "random"):
        sampled(run, tpe=arm == "tpe")
    else:
        Nightsmith(run, Planner(ChatBackend()) if arm == "nightsmith" else None).go()
    return run


def ratio(ours: list[float], theirs: list[float], draws: int = 4000) -> tuple[float, float, float]:
    """Ratio of the medians, with the 95 % interval of a bootstrap over seeds."""
    rng = np.random.default_rng(0)
    mine, other = np.array(ours), np.array(theirs)
    picks = rng.integers(len(mine), size=(draws, len(mine)))
    ratios = np.median(mine[picks], axis=1) / np.median(other[picks], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(np.median(mine) / np.median(other)), float(low), float(high)


def study(results: Results, names: list[str], count: int) -> None:
    """Random settings, so that a threshold can be set."""
    for name in names:
        problem, draw = PROBLEMS[name], random.Random(name)
        base = [results.of(name, problem.base, 100 + seed) for seed in range(3)]
        values = [row["value"] for row in base]
        print(
            f"{name} base {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} {base[0]['seconds']:.2f} s", flush=True
        )
        rows = []
        for number in range(count):
            own = {t.name: _drawn(t, draw) for t in problem.space}
            rows.append((results.of(name, {**problem.base, **own}, 100 + number)["value"], own))
        for value, own in sorted(rows, key=lambda row: -problem.sign * row[0]):
            print(f"  {value:.4f} {own}")


def _drawn(tunable: Tunable, draw: random.Random) -> Any:
    if tunable.kind == "choice":
        return draw.choice(tunable.choices)
    low, high = tunable.low or 0.0, tunable.high or 0.0
    return float(f"{low * (high / low) ** draw.random():.2g}") if tunable.log else round(draw.uniform(low, high), 2)


def main() -> None:
    """Measure what is asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--cache", type=Path, default=Path("tuning.jsonl"))
    parser.add_argument("--study", type=int, default=0, metavar="N", help="run N random settings a problem instead")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results, names = Results(args.cache), args.problems.split(",")
    if args.study:
        return study(results, names, args.study)
    rows: list[dict[str, Any]] = []
    order = [(name, arm, seed) for seed in range(args.seeds) for name in names for arm in args.arms.split(",")]
    with suppress(KeyboardInterrupt):  # what there is counts
        for name, arm, seed in order:
            run = measured(arm, name, seed, results)
            rows.append({"arm": arm, "problem": name, "seed": seed, "seconds": run.seconds,
                         "choosing_s": run.choosing_s, "trials": run.trials, "pruned": run.pruned,
                         "arrived": run.arrived})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    report(rows, names)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return None


def report(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Medians, and ratios of Nightsmith's to each other arm's."""
    for name in names:
        seconds = {arm: [r["seconds"] for r in rows if (r["arm"], r["problem"]) == (arm, name)] for arm in ARMS}
        for arm, own in ((arm, own) for arm, own in seconds.items() if own):
            mine = [r for r in rows if (r["arm"], r["problem"]) == (arm, name)]
            trials, choosing = (np.median([row[name_] for row in mine]) for name_ in ("trials", "choosing_s"))
            line = f"{name:8} {arm:11} median {np.median(own):6.2f} s, {trials:g} trials, choosing {choosing:.2f} s, "
            line += f"arrived {sum(row['arrived'] for row in mine)} of {len(mine)}"
            if seconds["nightsmith"] and arm != "nightsmith":
                line += "; nightsmith {:.2f}x [{:.2f}, {:.2f}] of it".format(*ratio(seconds["nightsmith"], own))
            print(line)


if __name__ == "__main__":
    main()
