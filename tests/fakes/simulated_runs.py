"""Simulated evaluations: documents of unequal length, seeds that vary, items that agree between runs."""

import numpy as np

from nightsmith.evals.suite import Items, Scored
from nightsmith.evals.types import Evaluation, SuiteSpec
from nightsmith.record.digest import sha256

LN2 = np.log(2)
SUITE = SuiteSpec(data="/data/dev.parquet", data_digest="d" * 64, split="dev")


def scored(items: Items, name: str = "run", suite: SuiteSpec = SUITE) -> Scored:
    """The evaluation of a checkpoint called `name` that left these items."""
    return Scored(
        Evaluation(
            checkpoint_digest=sha256(name),
            suite_digest=suite.digest(),
            items="items.parquet",
            items_digest=sha256(f"items of {name}"),
            metrics={},
            num_items=len(items),
            wall_s=1,
        ),
        items,
    )


class SimulatedRecipes:
    """Recipes on one set of documents; bits per byte = level + seed noise + document + the run's own noise."""

    def __init__(self, rng: np.random.Generator, *, num_items: int = 64, level: float = 2.5, item_sd: float = 0.3):
        self.rng, self.level, self.count = rng, level, 0
        self.num_bytes = rng.integers(100, 2048, num_items).astype(float)
        self.difficulty = rng.normal(0, item_sd, num_items)

    def items(self, effect: float = 0.0, *, seed_sd: float = 0.03, own_sd: float = 0.05) -> Items:
        """Item scores of one more seed of a recipe that moves bits per byte by `effect`."""
        bits = self.level + effect + self.rng.normal(0, seed_sd) + self.difficulty
        bits = bits + self.rng.normal(0, own_sd, len(bits))
        row_ids = np.array([f"row{i:04d}" for i in range(len(bits))])
        return Items(row_ids, bits * LN2 * self.num_bytes, self.num_bytes + 1, self.num_bytes)

    def run(self, effect: float = 0.0, *, seed_sd: float = 0.03, own_sd: float = 0.05) -> Scored:
        """The same as an evaluation of a new checkpoint."""
        self.count += 1
        return scored(self.items(effect, seed_sd=seed_sd, own_sd=own_sd), f"checkpoint {self.count}")

    def runs(self, num_seeds: int, effect: float = 0.0, *, seed_sd: float = 0.03) -> list[Scored]:
        """Several fresh seeds."""
        return [self.run(effect, seed_sd=seed_sd) for _ in range(num_seeds)]
