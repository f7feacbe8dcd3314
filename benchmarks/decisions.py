"""Whether every answer of a planner is an object of the schema that it was asked for, over many decisions.

    python -m benchmarks decisions [--decisions 500] [--from 0] [--url http://127.0.0.1:8000/v1] [--json out.json]

Decisions of the three kinds in turn: goals and sayings that the planner was never trained on, studies drawn at random.
Every answer is validated by jsonschema against the very schema that was sent with it; `stood` counts decisions whose
answer passed the planner's own checks as well, `asked again` those that needed more than one. Bar: all are valid.
`--from` begins later in the same order, so that a long run can be cut in pieces.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.conversing import ConverseRequest
from nightsmith.agent.planner import Planner, PlannerConfused
from nightsmith.agent.proposals import PastTrial, ProposeRequest, SettingState

EXAMPLES = Path(__file__).parents[1] / "examples" / "planner"
GOALS = ("heldout.jsonl", "heldout_second.jsonl", "heldout_tuning.jsonl")
SAYINGS = ("heldout_converse.jsonl", "heldout_converse_second.jsonl")
VALUES: dict[str, tuple[Any, ...]] = {
    "learning_rate": (3e-4, 1e-3, 3e-3), "batch_size": (4, 8, 16), "schedule": ("cosine", "wsd"),
    "num_steps": (200, 400), "weight_decay": (0.0, 0.1), "num_layers": (2, 4), "lora_rank": (8, 16),
}  # fmt: skip
Question = tuple[str, Any]
"""Kind of decision, and what is asked."""


def cases(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Lines of the held-out files."""
    return [json.loads(line) for name in names for line in (EXAMPLES / name).read_text().splitlines()]


def questions() -> Iterator[Question]:
    """Endlessly: a goal, a saying, a study; held-out ones in their order, studies from a seed."""
    draw = random.Random(0)
    goals, sayings = itertools.cycle(cases(GOALS)), itertools.cycle(cases(SAYINGS))
    while True:
        yield "interpret", next(goals)["goal"]
        yield "converse", _saying(next(sayings))
        yield "propose", _study(draw)


def _saying(case: dict[str, Any]) -> ConverseRequest:
    last = case["last_trial"]
    trials = () if last is None else tuple(range(last + 1))
    return ConverseRequest(text=case["text"], study=None if last is None else "s1", trials=trials)


def _study(draw: random.Random) -> ProposeRequest:
    names = draw.sample(sorted(VALUES), 5)
    states = tuple(SettingState(name=name, value=draw.choice(VALUES[name])) for name in names)
    past = tuple(
        PastTrial(
            number=number, setting=draw.choice(names), direction=draw.choice(("raise", "lower", "tune")),
            gain=round(draw.uniform(-0.3, 0.3), 3), decision=draw.choice(("promising", "rejected", "inconclusive")),
        )
        for number in range(1, draw.randint(1, 5))
    )  # fmt: skip
    left = draw.randint(1, 4)
    return ProposeRequest(
        objective="bits_per_byte <= -0.15 difference to baseline", settings=states, history=past, trials_left=left,
        k=draw.randint(1, min(2, left)),
    )  # fmt: skip


async def decide(planner: Planner, question: Question) -> dict[str, Any]:
    """One decision's transcript."""
    kind, asked = question
    try:
        if kind == "interpret":
            return (await planner.interpret(asked)).transcript
        answered = await (planner.converse(asked) if kind == "converse" else planner.propose(asked))
        return answered[1]
    except PlannerConfused as confused:
        return confused.transcript


def judged(kind: str, transcript: dict[str, Any]) -> dict[str, Any]:
    """Which of its answers are valid."""
    valid = [
        _is_valid(answer, transcript["schemas"][asked["schema_digest"]])
        for answer, asked in zip(transcript["answers"], transcript["asked"], strict=True)
    ]
    stood = transcript["result"] is not None and len(transcript["errors"]) < len(valid)
    return {
        "kind": kind,
        "valid": valid,
        "stood": stood,
        "seconds": transcript["wall_s"],
        "answers": transcript["answers"],
    }


def _is_valid(answer: str, schema: dict[str, Any]) -> bool:
    with suppress(ValueError):
        return Draft202012Validator(schema).is_valid(json.loads(answer))
    return False


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, and seconds by kind."""
    answers = [valid for row in rows for valid in row["valid"]]
    seconds: Counter[str] = Counter()
    for row in rows:
        seconds[row["kind"]] += row["seconds"]
    numbers = Counter(row["kind"] for row in rows)
    return {
        "decisions": len(rows),
        "answers": len(answers),
        "valid answers": sum(answers),
        "asked again": sum(len(row["valid"]) > 1 for row in rows),
        "stood": sum(row["stood"] for row in rows),
        **{f"seconds a decision, {kind}": round(seconds[kind] / count, 2) for kind, count in numbers.items()},
    }


def main() -> None:
    """Decide and print. Exit status 1 where an answer is no object of its schema."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=500)
    parser.add_argument("--from", dest="first", type=int, default=0, help="decisions to leave out at the beginning")
    parser.add_argument("--url", help="base URL up to /v1; without it the embedded planner")
    parser.add_argument("--model")
    parser.add_argument("--json", type=Path, help="write summary and rows here")
    args = parser.parse_args()
    planner = Planner(ChatBackend(url=args.url, model=args.model))
    begun = time.monotonic()
    chosen = itertools.islice(questions(), args.first, args.first + args.decisions)
    rows: list[dict[str, Any]] = []
    with suppress(KeyboardInterrupt):  # what there is counts
        for kind, asked in chosen:
            rows.append(judged(kind, asyncio.run(decide(planner, (kind, asked)))))
    found = summary(rows) | {"seconds in all": round(time.monotonic() - begun)}
    print("\n".join(f"{name:32} {value}" for name, value in found.items()))
    for row in rows:
        if not all(row["valid"]):
            print(f"invalid: {row['kind']} {row['answers']}")
    if args.json:
        args.json.write_text(json.dumps({"summary": found, "rows": rows}, indent=1))
    raise SystemExit(found["valid answers"] < found["answers"])


if __name__ == "__main__":
    main()
