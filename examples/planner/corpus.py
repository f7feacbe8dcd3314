"""Write the training corpus of the embedded planner: prompts as the planner gets them, answers in the wire form.

    python examples/planner/corpus.py OUT_DIR [--goals 1150] [--proposals 400] [--seed 0] [--tokenizer tokenizer.json]

Goals come from the grammar and from `handwritten.jsonl`; `heldout.jsonl` is never read here.
"""

import argparse
import json
import random
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grammar
import parts
import propose_cases

from nightsmith.agent import literals, prompting, proposals, wire

HERE = Path(__file__).parent


def compact(value: Any) -> str:
    """JSON as the planner writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def interpret_example(goal: str, gold: dict[str, Any]) -> dict[str, str]:
    """One example of the interpret decision. WireError where the finder lacks a value of the gold answer."""
    candidates = literals.find(goal)
    answer = wire.ground(gold, candidates)
    wire.expand(answer, goal, candidates)
    return {
        "prompt": prompting.chat_text(prompting.interpret_messages(goal, candidates)),
        "completion": compact(answer),
    }


def propose_example(r: random.Random) -> dict[str, str]:
    """One example of the propose decision."""
    request, gold = propose_cases.case(r)
    proposals.expand(gold, request)
    return {"prompt": prompting.chat_text(prompting.propose_messages(request)), "completion": compact(gold)}


def repair_example(goal: str, gold: dict[str, Any], r: random.Random) -> dict[str, str] | None:
    """A wrong first answer, the error, and the right answer; None where the first would stand."""
    candidates = literals.find(goal)
    try:
        right = compact(wire.ground(gold, candidates))
    except wire.WireError:
        return None
    used = sorted(set(re.findall(r'"(L\d+)"', right)))
    if not used:
        return None
    wrong = right.replace(
        f'"{r.choice(used)}"', f'"L{r.choice((r.randrange(len(candidates)), len(candidates) + r.randrange(4)))}"'
    )
    try:
        wire.expand(json.loads(wrong), goal, candidates)
    except wire.WireError as error:
        messages = prompting.interpret_messages(goal, candidates) + prompting.repair_messages(wrong, str(error))
        return {"prompt": prompting.chat_text(messages), "completion": right}
    return None


def _unambiguous(goal: str) -> bool:
    """Whether no two numbers of a goal have the same value, so that it is clear which one the answer means."""
    values = [
        (c.kind, c.value) for c in literals.find(goal) if c.rule is None and c.kind in ("number", "duration", "time")
    ]
    return max(Counter(values).values(), default=0) < 2


def grammar_examples(number: int, seed: int, failures: list[str]) -> Iterator[dict[str, str]]:
    """Examples from the grammar. Noise that would destroy a literal is left out."""
    r, seen = random.Random(seed), set[str]()
    while len(seen) < number:
        clean, gold = grammar.goal(r)
        if not _unambiguous(clean):
            continue
        for text in dict.fromkeys((parts.noise(r, clean), clean)):
            try:
                example = interpret_example(text, gold)
            except wire.WireError as error:
                if text == clean:
                    failures.append(f"{text}\n   {compact(gold)}\n   {error}")
                continue
            if example["prompt"] not in seen:
                seen.add(example["prompt"])
                yield example
            break


def handwritten_examples(path: Path) -> Iterator[dict[str, str]]:
    """Examples written by hand; a value that the finder lacks is an error."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        case = json.loads(line)
        try:
            yield interpret_example(case["goal"], case["gold"])
        except wire.WireError as error:
            raise SystemExit(f"{path.name}:{number}: {case['goal'][:200]}\n   {error}") from error


def write(path: Path, examples: list[dict[str, str]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(compact(example) + "\n" for example in examples))


def token_counts(examples: list[dict[str, str]], tokenizer: Path) -> list[int]:
    """Tokens of prompt and answer together."""
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(tokenizer)).encode
    return [len(encode(example["prompt"] + example["completion"]).ids) + 1 for example in examples]


def main() -> None:
    """Write train.jsonl and dev.jsonl (one in forty) and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--goals", type=int, default=1100)
    parser.add_argument("--proposals", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=2, help="copies of the handwritten goals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path)
    args = parser.parse_args()
    failures: list[str] = []
    r = random.Random(args.seed + 1)
    examples = list(grammar_examples(args.goals, args.seed, failures))
    repaired = [example for _ in range(80) if (example := repair_example(*grammar.pretrain(r), r)) is not None][:25]
    written = list(handwritten_examples(HERE / "handwritten.jsonl")) if (HERE / "handwritten.jsonl").exists() else []
    proposed = list(
        {example["prompt"]: example for example in (propose_example(r) for _ in range(args.proposals))}.values()
    )
    everything = [*examples, *written * args.repeat, *proposed, *repaired]
    r.shuffle(everything)
    args.out.mkdir(parents=True, exist_ok=True)
    held = len(everything) // 40
    write(args.out / "train.jsonl", everything[held:])
    write(args.out / "dev.jsonl", everything[:held])
    counts = {
        "grammar": len(examples),
        "handwritten": len(written),
        "propose": len(proposed),
        "repair": len(repaired),
        "train": len(everything) - held,
        "dev": held,
        "grammar_goals_refused": len(failures),
    }
    if args.tokenizer:
        tokens = token_counts(everything, args.tokenizer)
        counts |= {
            "tokens": sum(tokens),
            "median_tokens": int(statistics.median(tokens)),
            "p95_tokens": sorted(tokens)[len(tokens) * 95 // 100],
        }
    (args.out / "failures.txt").write_text("\n".join(failures))
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
