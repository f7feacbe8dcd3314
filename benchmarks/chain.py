"""Pre-training, fine-tuning and reinforcement learning as one chain of jobs on a task of reasoning-gym, over seeds.

    python -m benchmarks chain [--seeds 0,1,2] [--until grpo] [--workspace DIR] [--out chain.md]

Sums of four numbers from 0 to 10, in bytes, with `nano`: pre-trained on problems as texts, fine-tuned for a moment to
answer, then paid by the task's own verifier. The jobs are the product's, under approval, budget and lease, two side by
side; called again in the same workspace it goes on, and starts no job twice. Prompts of dev are in no training data.
"""

import argparse
import json
import math
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nightsmith.evals import stats
from nightsmith.evals.rewards import ExactMatchReward, ReasoningGymReward
from nightsmith.evals.suite import Items, read_items
from nightsmith.evals.types import SuiteSpec
from nightsmith.record import approvals, budget
from nightsmith.record.approvals import Envelope
from nightsmith.record.budget import Budget
from nightsmith.record.workspace import Workspace, open_workspace
from nightsmith.tools.data.build import BuildDataset, build_dataset
from nightsmith.tools.data.manifest import Manifest
from nightsmith.tools.evaluation import chat_suite, evaluate_model_spec
from nightsmith.tools.finetuning import Sft, sft_spec
from nightsmith.tools.training import Pretrain, pretrain_spec
from nightsmith.trainer import jobs
from nightsmith.trainer.journal import JOURNAL, read_journal
from nightsmith.trainer.spec import GrpoSpec, ModelRef, RunResult, RunSpec, RunStatus

TASK, NUM_GENERATED = "basic_arithmetic", 20_000
PARAMETERS = (
    ("allow_parentheses", False),
    ("max_digits", 1),
    ("max_terms", 4),
    ("min_terms", 4),
    ("operators", ("+",)),
)
SOURCE = f"reasoning-gym:{TASK}?allow_parentheses=false&max_digits=1&max_terms=4&min_terms=4&operators=+"
ITEMS = 1200
"""Dev prompts that are answered, greedily."""
STAGES = ("pretrain", "sft", "grpo")
LIMIT_S = 1800.0
STUDY = "chain"


def build(ws: Workspace) -> tuple[Manifest, Manifest]:
    """Conversations, and texts without the held-out conversations."""
    chat = build_dataset(
        BuildDataset(sources=(SOURCE,), rows="chat", num_generated=NUM_GENERATED, dev_rows=ITEMS, sealed_share=0.1), ws
    )
    texts = BuildDataset(
        sources=(SOURCE,), num_generated=NUM_GENERATED, without=(chat.dataset,), dev_share=0.02, sealed_share=0.02
    )
    return chat, build_dataset(texts, ws)


def approve(ws: Workspace) -> None:
    """What the command line's `--yes` does."""
    budget.open_account(ws, STUDY, Budget())
    envelope = Envelope(
        study=STUDY, spec_digest="0" * 64, plan_digest="0" * 64, kinds=(*STAGES, "evaluate"), time_limit_s=LIMIT_S
    )
    approvals.approve(ws, envelope, how="flag")


class Chain:
    """One seed's stages, each on the checkpoint before it."""

    def __init__(self, ws: Workspace, chat: Manifest, texts: Manifest, seed: int) -> None:
        self._ws, self._chat, self._texts, self._seed = ws, chat, texts, seed
        self._suite: SuiteSpec = chat_suite(chat, ws, "dev", max_items=ITEMS, max_new_tokens=8)

    def run(self, until: str) -> dict[str, RunResult]:
        """Results by stage, up to one or to one that does not finish; `before`: the pre-trained model's evaluation."""
        last = STAGES.index(until)
        found: dict[str, RunResult] = {}
        if self._job(found, "pretrain", self._pretrain()) and last:
            base = _model(found["pretrain"])
            evaluated = self._job(found, "before", evaluate_model_spec(base, self._suite))
            if evaluated and self._job(found, "sft", self._sft(base)) and last > 1:
                self._job(found, "grpo", self._grpo(_model(found["sft"])))
        return found

    def _pretrain(self) -> RunSpec:
        recipe = Pretrain(
            preset="nano", num_steps=1500, batch_size=16, learning_rate=3e-3, router_aux_loss_coef=0.01, seed=self._seed
        )
        return pretrain_spec(recipe, self._texts, self._ws, dev_items=100)

    def _sft(self, model: ModelRef) -> RunSpec:
        recipe = Sft(adaptation="full", num_steps=200, batch_size=64, learning_rate=1e-3, max_len=96, seed=self._seed)
        return sft_spec(recipe, self._chat, self._ws, model=model, suite=self._suite)

    def _grpo(self, model: ModelRef) -> RunSpec:
        reward = ReasoningGymReward(task=TASK, parameters=PARAMETERS, seed=0, num_generated=NUM_GENERATED)
        return GrpoSpec(
            model=model, data=str(self._chat.path(self._ws, "train")),
            data_digest=self._chat.split("train").data_digest, rewards=(reward,), verifier=ExactMatchReward(),
            adaptation="full", num_steps=280, batch_size=32, num_generations=8, max_completion_length=6, max_len=96,
            learning_rate=1e-4, schedule="cosine", seed=self._seed, dev_suite=self._suite,
        )  # fmt: skip

    def _job(self, found: dict[str, RunResult], stage: str, spec: RunSpec) -> bool:
        """Start a job, or find it, and wait for its end; whether it finished."""
        key = jobs.start(self._ws, spec, study=STUDY, step=f"{stage}-{self._seed}", role="trial", time_limit_s=LIMIT_S)
        while (result := jobs.poll(self._ws, key)) is None:
            time.sleep(0.5)
        print(f"seed {self._seed} {stage}: {result.status}, {result.wall_s:.0f} s {result.reason}", flush=True)
        found[stage] = result
        return result.status is RunStatus.FINISHED


def _model(result: RunResult) -> ModelRef:
    return ModelRef(path=str(result.checkpoint), weights_digest=str(result.checkpoint_digest))


def _items(ws: Workspace, result: RunResult) -> Items:
    assert result.evaluation is not None
    return read_items(ws.run_dir(result.key) / result.evaluation.items, result.evaluation.items_digest)


def row(ws: Workspace, seed: int, found: dict[str, RunResult]) -> dict[str, float]:
    """The figures of a seed whose stages all finished."""
    pretrained = found["pretrain"]
    first = next(line for line in read_journal(ws.run_dir(pretrained.key) / JOURNAL) if line["kind"] == "step")
    assert pretrained.evaluation is not None
    before, after_sft, after_grpo = (_items(ws, found[stage]) for stage in ("before", "sft", "grpo"))
    tuned = stats.fixed_effect([after_sft], before, "exact_match")
    gain = stats.fixed_effect([after_grpo], after_sft, "exact_match")
    low, high = gain.interval(0.05)
    return {
        "seed": seed,
        "bits at first": first["loss"] / math.log(2),
        "bits per byte": pretrained.evaluation.metrics["bits_per_byte"],
        "exact match": stats.value(before, "exact_match"),
        "after sft": stats.value(after_sft, "exact_match"),
        "sft's gain at least": tuned.lower(0.025),
        "after grpo": stats.value(after_grpo, "exact_match"),
        "gain": gain.estimate, "low": low, "high": high, "n": len(after_grpo),
        "seconds": sum(result.wall_s for result in found.values()),
    }  # fmt: skip


def passes(figures: dict[str, float]) -> bool:
    """Whether pre-training, fine-tuning and reinforcement learning each did what they are for."""
    return (
        figures["bits per byte"] < figures["bits at first"]
        and figures["exact match"] < 0.02
        and figures["sft's gain at least"] > 0
        and figures["low"] > 0
        and figures["n"] >= 1000
        and figures["seconds"] <= 900
    )


def stopped(seed: int, found: dict[str, RunResult]) -> str | None:
    """Where and why a seed's chain did not get to its end."""
    stage, result = list(found.items())[-1]
    if result.status is RunStatus.FINISHED:
        return None
    return f"Seed {seed} did not pass: {stage} ended {result.status} after {result.wall_s:.0f} s. {result.reason}"


def report(rows: list[dict[str, float]], failures: list[str], wall_s: float) -> str:
    """One table, and what has no row in it."""
    names = list(rows[0]) if rows else ["seed"]
    lines = [
        f"# pretrain → sft → grpo on `{SOURCE}`",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(f"{figures[name]:.4g}" for name in names) + " |" for figures in rows),
        "",
        *failures,
        f"{sum(map(passes, rows))} of {len(rows) + len(failures)} seeds pass; {wall_s:.0f} s for what was run now. "
        "Gain and its 95 % interval are paired by prompt.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the chains, write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--until", choices=STAGES, default="grpo")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--out", type=Path, default=Path("chain.md"))
    args = parser.parse_args()
    began = time.monotonic()
    ws = open_workspace(args.workspace or Path(tempfile.mkdtemp(prefix="nightsmith-chain-")) / ".nightsmith")
    chat, texts = build(ws)
    approve(ws)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    with ThreadPoolExecutor(args.parallel) as pool:
        found = dict(
            zip(seeds, pool.map(lambda seed: Chain(ws, chat, texts, seed).run(args.until), seeds), strict=True)
        )
    if args.until == "grpo":
        ends = {seed: stopped(seed, results) for seed, results in found.items()}
        rows = [row(ws, seed, results) for seed, results in found.items() if not ends[seed]]
        args.out.write_text(report(rows, [end for end in ends.values() if end], time.monotonic() - began))
        args.out.with_suffix(".json").write_text(json.dumps(rows, indent=1))
        print(args.out.read_text())
        return 0 if sum(map(passes, rows)) * 3 >= 2 * len(seeds) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
