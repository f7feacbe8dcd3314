"""How well a planner understands goals and sayings that it was never trained on.

    python benchmarks/planner.py [--url http://127.0.0.1:8000/v1] [--base | --shuffled] [--few-shot 4] [--wrong]
    python benchmarks/planner.py --goals examples/planner/heldout_third.jsonl [--goals examples/planner/honeypots.jsonl]
    python benchmarks/planner.py --sayings [examples/planner/heldout_converse.jsonl]

Without --url the embedded planner is measured, with --base the embedded base model without its adapter, with --shuffled
an adapter whose weights are shuffled within each matrix: same size, same scale, nothing learned. With --few-shot that
many goals by hand stand solved before each goal. A literal that is not
the goal's cannot occur in a spec; `repaired` counts answers that named one (or broke another rule) at first.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nightsmith.agent import conversing, labels, literals, prompting, wire
from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.conversing import ConverseRequest, Utterance
from nightsmith.agent.planner import Answered, Interpretation, Planner
from nightsmith.agent.wire import Meaning
from nightsmith.agent.wire_error import WireError
from nightsmith.model.planner_server import ADAPTER, ensure, stop

EXAMPLES = Path(__file__).parents[1] / "examples" / "planner"
HELDOUT, HELDOUT_SAYINGS = EXAMPLES / "heldout.jsonl", EXAMPLES / "heldout_converse.jsonl"
FIELDS = (
    "intent", "methods", "model", "adaptation", "data", "pipeline", "avoid", "settings", "architecture", "reward",
    "targets", "guardrails", "budget", "gpus", "nodes", "schedule", "output",
)  # fmt: skip
TARGET_PARTS = ("metric", "op", "value", "relative_to", "relation", "task", "name", "data", "stage")


STATUS = {"ready": "ready", "ask": "needs_answers", "blocked": "blocked"}


def gold_meaning(case: dict[str, Any]) -> Meaning | None:
    """What a goal means, from its gold answer; null where it has a literal that code does not find in the goal."""
    found = literals.find(case["goal"])
    try:
        return wire.expand(wire.ground(case["gold"], found), case["goal"], found)
    except WireError:
        return None


def score(reading: Interpretation, case: dict[str, Any]) -> dict[str, bool]:
    """Which parts of a reading are right. Fields count where gold or reading fills them."""
    gold = gold_meaning(case)
    marks = {"status": reading.status == STATUS[case["gold"]["s"]], "literals found": gold is not None}
    if gold is None:
        return {**marks, "every field": False}
    if gold.status == "needs_answers":
        marks["questions"] = {q.field for q in reading.questions} == {q.field for q in gold.questions}
    if gold.status == "blocked":
        marks["reasons"] = reading.reasons == tuple(gold.reason_texts())
    ours = reading.spec.model_dump(mode="json") if reading.spec else {}
    theirs = gold.spec.model_dump(mode="json") if gold.spec else {}
    for name in FIELDS:
        if ours.get(name) or theirs.get(name):
            marks[name] = _comparable(ours.get(name)) == _comparable(theirs.get(name))
    for mine, right in zip(ours.get("targets", []), theirs.get("targets", []), strict=False):
        marks |= {f"targets.{part}": mine[part] == right[part] for part in TARGET_PARTS if mine[part] or right[part]}
    marks["every field"] = all(marks.values())
    return marks


def _comparable(value: Any) -> Any:
    """Nulls left out; a missing record equals one that says nothing."""
    if isinstance(value, dict):
        return {key: _comparable(part) for key, part in value.items() if part is not None} or None
    return [_comparable(part) for part in value] or None if isinstance(value, list) else value


def invented(reading: Interpretation) -> int:
    """Values of targets and names of data without a source: 0 by construction, counted all the same."""
    if reading.spec is None:
        return 0
    values = [f"/targets/{i}/value" for i, target in enumerate(reading.spec.targets) if target.value is not None]
    refs = [f"/data/{i}/ref" for i in range(len(reading.spec.data))]
    return sum(pointer not in reading.sources for pointer in (*values, *refs))


async def measure(planner: Planner, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Interpret each goal, one after the other."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        started = time.monotonic()
        reading = await planner.interpret(case["goal"])
        transcript = reading.transcript
        rows.append(
            {
                "goal": case["goal"],
                "seconds": time.monotonic() - started,
                "valid": _is_json(transcript["answers"][0]),
                "repaired": bool(transcript["errors"]),
                "invented": invented(reading),
                "marks": score(reading, case),
                "answer": transcript["answers"][-1],
                "gold": json.dumps(case["gold"], separators=(",", ":")),
            }
        )
    return rows


@dataclass(frozen=True)
class FewShot:
    """A backend that shows solved goals before each goal."""

    backend: ChatBackend
    number: int

    async def complete(self, messages: list[dict[str, str]], schema: dict[str, Any], **limits: Any) -> Answered:
        """Ask once."""
        return await self.backend.complete([messages[0], *solved(self.number), *messages[1:]], schema, **limits)


@cache
def solved(number: int) -> tuple[dict[str, str], ...]:
    """So many goals of those written by hand, each with its answer."""
    turns: list[dict[str, str]] = []
    cases = [json.loads(line) for line in (EXAMPLES / "handwritten_everyday.jsonl").read_text().splitlines()]
    for case in cases[:: len(cases) // number][:number]:
        found = literals.find(case["goal"])
        answer = labels.labelled(wire.compress(gold_meaning(case) or wire.Meaning("ready"), found), found)
        turns += [prompting.interpret_messages(case["goal"], found)[-1]]
        turns += [{"role": "assistant", "content": json.dumps(answer, separators=(",", ":"))}]
    return tuple(turns)


async def measure_sayings(planner: Planner, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hear each saying, one after the other."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        last, gold = case["last_trial"], Utterance(**case["gold"])
        trials = () if last is None else tuple(range(last + 1))
        request = ConverseRequest(text=case["text"], study=None if last is None else "study", trials=trials)
        started = time.monotonic()
        said, transcript = await planner.converse(request)
        rows.append(
            {
                "goal": case["text"],
                "seconds": time.monotonic() - started,
                "valid": _is_json(transcript["answers"][0]),
                "repaired": bool(transcript["errors"]),
                "invented": len(set(said.trials) - set(_numbers(request))),
                "marks": score_saying(said, gold),
                "answer": said.model_dump_json(exclude_defaults=True),
                "gold": gold.model_dump_json(exclude_defaults=True),
            }
        )
    return rows


def score_saying(said: Utterance, gold: Utterance) -> dict[str, bool]:
    """Which parts of an utterance are right; each kind is counted on its own as well."""
    marks = {"kind": said.kind == gold.kind, f"kind {gold.kind}": said.kind == gold.kind}
    for name in ("trials", "setting", "direction"):
        if getattr(said, name) or getattr(gold, name):
            marks[name] = getattr(said, name) == getattr(gold, name)
    return {**marks, "every field": said == gold}


def _numbers(request: ConverseRequest) -> list[int]:
    return [mention.number for mention in conversing.mentions(request)]


def shuffled(adapter: Path, out: Path, seed: int = 0) -> Path:
    """Copy an adapter with the entries of every matrix in random order."""
    import numpy as np
    from gguf import GGUFReader

    data = bytearray(adapter.read_bytes())
    r = np.random.default_rng(seed)
    for tensor in GGUFReader(adapter).tensors:
        start, values = int(tensor.data_offset), np.array(tensor.data).ravel()
        data[start : start + values.nbytes] = r.permutation(values).tobytes()
    out.write_bytes(bytes(data))
    return out


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and shares over all goals."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        for name, right in row["marks"].items():
            marks[name].append(right)
    seconds = sorted(row["seconds"] for row in rows)
    return {
        "goals": len(rows),
        "valid_json": sum(row["valid"] for row in rows),
        "repaired": sum(row["repaired"] for row in rows),
        "invented_literals": sum(row["invented"] for row in rows),
        "latency_median_s": round(statistics.median(seconds), 2),
        "latency_p95_s": round(seconds[min(len(seconds) - 1, len(seconds) * 95 // 100)], 2),
        "right": {name: {"right": sum(values), "of": len(values)} for name, values in sorted(marks.items())},
    }


def table(found: dict[str, Any]) -> str:
    """The summary for a terminal."""
    lines = [f"{name:24} {value}" for name, value in found.items() if name != "right"]
    lines += [f"{name:24} {part['right']:3} / {part['of']:3}" for name, part in found["right"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="base URL up to /v1; without it the embedded planner")
    parser.add_argument("--model")
    parser.add_argument("--base", action="store_true", help="embedded planner without its adapter")
    parser.add_argument("--adapter", type=Path, help="another adapter of the embedded planner")
    parser.add_argument("--shuffled", action="store_true", help="embedded planner with shuffled adapter weights")
    parser.add_argument("--few-shot", type=int, default=0, help="solved goals shown before each goal")
    parser.add_argument("--limit", type=int, help="goals at most, evenly from the file")
    parser.add_argument("--goals", type=Path, default=HELDOUT)
    parser.add_argument("--sayings", type=Path, nargs="?", const=HELDOUT_SAYINGS, help="hear sayings instead of goals")
    parser.add_argument("--json", type=Path, help="write summary and rows here")
    parser.add_argument("--wrong", action="store_true", help="print each goal that is not wholly right")
    args = parser.parse_args()
    adapter = None if args.base else (args.adapter or ADAPTER).absolute()  # the server starts in another folder
    with tempfile.TemporaryDirectory() as folder:
        if args.shuffled and adapter:
            adapter = shuffled(adapter, Path(folder) / "shuffled.gguf")
        backend = ChatBackend(url=args.url, model=args.model, adapter=adapter)
        planner = Planner(FewShot(backend, args.few_shot) if args.few_shot else backend)
        cases = [json.loads(line) for line in (args.sayings or args.goals).read_text().splitlines()]
        cases = cases[:: max(1, len(cases) // args.limit)] if args.limit else cases
        rows = asyncio.run((measure_sayings if args.sayings else measure)(planner, cases))
        if args.url is None and adapter != ADAPTER:
            stop(ensure(adapter))
    found = summary(rows)
    print(table(found))
    for row in rows if args.wrong else ():
        if not row["marks"]["every field"]:
            print(f"\n{row['goal']}\n  said {row['answer']}\n  gold {row['gold']}")
    if args.json:
        args.json.write_text(json.dumps({"summary": found, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
