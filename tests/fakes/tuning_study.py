"""A whole study that fine-tunes a model of one's own: a tiny Llama in a folder, two tables with odd column names."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_planner
from tiny_models import write_model
from tiny_study import Bench

from nightsmith.agent import labels, literals

GOAL = (
    "Fine-tune ./tiny-llama on ./faq.csv, then on ./tickets.csv, for 30 steps each with a learning rate of 0.01, until "
    "exact match is at least 0.5; at most 2 trials."
)
ANOTHER = {"mv": "hyperparameters", "set": "schedule", "dir": "tune", "why": "decay"}
STOP = {"mv": "stop"}
ANSWERS = ("Neustart.", "Bitte warten.")


def reading(goal: str = GOAL, *, steps: int = 30, rate: float = 0.01, target: float = 0.5, trials: int = 2) -> Any:
    """The answer that a good planner gives to GOAL (or to one that differs in its literals only)."""
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(goal))}
    wire = {
        "s": "ready",
        "do": "train",
        "how": ["sft", "sft"],
        "model": found["./tiny-llama"],
        "data": [{"r": found["./faq.csv"], "at": 0}, {"r": found["./tickets.csv"], "at": 1}],
        "set": [{"k": "steps", "v": found[float(steps)]}, {"k": "learning_rate", "v": found[rate]}],
        "want": [{"m": "exact_match", "op": ">=", "v": found[target]}],
        "max": {"trials": found[float(trials)]},
    }
    return labels.labelled(wire, literals.find(goal))


def write_table(path: Path, columns: tuple[str, str], *, rows: int = 120) -> None:
    """A table as people keep them: a number, who it is from, a question, an answer."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["lfd_nr", columns[0], "bearbeiter", columns[1]])
        for number in range(rows):
            broken = number % 4 != 0
            asked = f"Anlage {number} meldet {'Fehler' if broken else 'Ende'}, was tun?"
            table.writerow([number, asked, "mk" if number % 3 else "ts", ANSWERS[0] if broken else ANSWERS[1]])


@contextmanager
def bench(folder: Path, *answers: Any, by_content: bool = False) -> Iterator[Bench]:
    """A bench with model and tables, whose planner gives these answers in order."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "tiny-llama")
    write_table(folder / "faq.csv", ("kundenanliegen", "antw_text"))
    write_table(folder / "tickets.csv", ("Frage d. Kunden", "Loesung"))
    with fake_planner.serve(*answers, by_content=by_content) as planner:
        yield Bench(folder, planner)
