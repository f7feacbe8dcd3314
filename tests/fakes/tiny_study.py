"""A whole study through the real command line, small enough for a test: a text folder, 40 steps a run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_planner

from nightsmith.agent import labels, literals

GOAL = (
    "Pre-train a mixture-of-experts model from scratch on ./corpus with 40 steps until bits per byte are at least 0.3 "
    "below the baseline; at most 2 trials."
)
RAISE = {"mv": "hyperparameters", "set": "learning_rate", "dir": "raise", "why": "faster"}
LOWER = {"mv": "hyperparameters", "set": "learning_rate", "dir": "lower", "why": "steadier"}
STOP = {"mv": "stop"}


def reading(
    goal: str, *, target: float = -0.3, trials: int = 2, steps: int = 40, folder: str = "./corpus"
) -> dict[str, Any]:
    """The answer that a good planner gives to GOAL (or to one that differs in its literals only)."""
    found = {candidate.value: candidate.id for candidate in reversed(literals.find(goal))}
    wire = {
        "s": "ready",
        "do": "train",
        "how": ["pretrain"],
        "data": [{"r": found[folder]}],
        "set": [{"k": "steps", "v": found[float(steps)]}],
        "want": [{"m": "bits_per_byte", "op": "<=", "v": found[target], "to": "baseline"}],
        "max": {"trials": found[float(trials)]},
    }
    return labels.labelled(wire, literals.find(goal))


@dataclass
class Bench:
    """A folder with a corpus and a workspace, and a planner that says what it is told."""

    folder: Path
    planner: fake_planner.FakePlanner

    @property
    def workspace(self) -> Path:
        """Where the studies lie."""
        return self.folder / ".nightsmith"

    @property
    def jobs(self) -> list[Path]:
        """Run folders, one a job."""
        return sorted((self.workspace / "runs").glob("*"))

    def command(self, *args: str) -> list[str]:
        """A nightsmith command of this workspace."""
        return [sys.executable, "-m", "nightsmith.agent.cli", *args, "--workspace", str(self.workspace)]

    def env(self) -> dict[str, str]:
        """Its environment: the fake planner, three devices."""
        return os.environ | {
            "NIGHTSMITH_PLANNER_URL": self.planner.url,
            "NIGHTSMITH_DEVICES": "cpu:0,cpu:1,cpu:2",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *args: str) -> "subprocess.Popen[str]":
        """Start a command in a session of its own."""
        return subprocess.Popen(
            self.command(*args), cwd=self.folder, env=self.env(), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *args: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        process = self.start(*args)
        out, err = process.communicate(timeout=400)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def show(self, study: str = "s1") -> dict[str, Any]:
        """`nightsmith show --json`."""
        return json.loads(self.run("show", study, "--json").stdout)


def _module(number: int) -> str:
    """Some 2 kB of source text, different for every number."""
    return "".join(f"def f{number}_{line}(x):\n    return x * {number} + {line}\n\n" for line in range(60))


def write_corpus(folder: Path, documents: Sequence[str] | None = None) -> None:
    """A folder of texts, `corpus`."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    texts = documents or [_module(number) for number in range(60)]
    for number, text in enumerate(texts):
        (corpus / f"{number:03}.py").write_text(text)


@contextmanager
def bench(
    folder: Path, *answers: Any, documents: Sequence[str] | None = None, by_content: bool = False
) -> Iterator[Bench]:
    """A bench whose planner gives these answers in order; `by_content`: a question asked again has its first answer."""
    write_corpus(folder, documents)
    with fake_planner.serve(*answers, by_content=by_content) as planner:
        yield Bench(folder, planner)
