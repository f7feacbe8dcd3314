"""Write the training corpus of the embedded planner: conversations as the planner has them, answers in the wire form.

    python examples/planner/corpus.py OUT_DIR [--goals 350] [--tuning 600] … [--seed 0] [--tokenizer tokenizer.json]
    python examples/planner/corpus.py OUT_DIR --only sayings --sayings 100 --held 16

What is trained on comes from the grammars and the `handwritten*.jsonl` files, never from the `heldout*.jsonl` files.
"""

import argparse
import json
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import clauses
import extras
import grammar
import naming
import other_goals
import parts
import propose_cases
import refusals
import sayings
import tuning_goals

from nightsmith.agent import conversing, labels, literals, prompting, proposals, wire
from nightsmith.agent.conversing import ConverseRequest
from nightsmith.agent.literals import Candidate

HERE = Path(__file__).parent
Example = dict[str, list[prompting.Message]]
"""{"messages": …}: what the planner is asked, and what it should answer."""


def compact(value: Any) -> str:
    """JSON as the planner writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def conversation(asked: list[prompting.Message], answer: Any) -> Example:
    """An example: the turns that are asked, and the answer as JSON."""
    return {"messages": [*asked, {"role": "assistant", "content": compact(answer)}]}


def question(example: Example) -> str:
    """What is asked, as text; examples that ask the same are one."""
    return prompting.chat_text(example["messages"][:-1])


def interpret_example(goal: str, gold: dict[str, Any]) -> Example:
    """One example of the interpret decision. WireError where the finder lacks a value of the gold answer."""
    candidates = literals.find(goal)
    return conversation(prompting.interpret_messages(goal, candidates), right_answer(goal, gold, candidates))


def right_answer(goal: str, gold: dict[str, Any], candidates: tuple[Candidate, ...]) -> dict[str, Any]:
    """What the planner should answer. WireError where the finder lacks a value of the gold answer."""
    meaning = wire.expand(wire.ground(gold, candidates), goal, candidates)
    return labels.labelled(wire.compress(meaning, candidates), candidates)


def propose_example(r: random.Random) -> Example:
    """One example of the propose decision."""
    request, gold = propose_cases.case(r)
    proposals.expand(gold, request)
    return conversation(prompting.propose_messages(request), gold)


def repair_example(goal: str, gold: dict[str, Any], r: random.Random) -> Example | None:
    """A first answer with a wrong label, the error, and the right answer; None where the first would stand."""
    candidates = literals.find(goal)
    try:
        right = right_answer(goal, gold, candidates)
    except wire.WireError:
        return None
    ids = [candidate.id for candidate in candidates if candidate.id in right]
    wrong = {**right, **({r.choice(ids): r.choice(labels.LABELS)} if ids else {})}
    try:
        wire.expand(labels.unlabelled(wrong, candidates), goal, candidates)
    except wire.WireError as error:
        repair = prompting.repair_messages(compact(wrong), str(error))
        return conversation(prompting.interpret_messages(goal, candidates) + repair, right)
    return None


def _unambiguous(goal: str) -> bool:
    """Whether no two numbers of a goal have the same value, so that it is clear which one the answer means."""
    values = [
        (c.kind, c.value) for c in literals.find(goal) if c.rule is None and c.kind in ("number", "duration", "time")
    ]
    return max(Counter(values).values(), default=0) < 2


def grammar_examples(
    make: Callable[[random.Random], Iterable[parts.Part]], number: int, seed: str, failures: list[str]
) -> Iterator[Example]:
    """Examples from a grammar. Noise that would destroy a literal is left out."""
    r, seen = random.Random(seed), set[str]()
    while len(seen) < number:
        for clean, gold in make(r):
            yield from _noisy(r, clean, gold, seen, failures)


def _noisy(r: random.Random, clean: str, gold: parts.Gold, seen: set[str], failures: list[str]) -> Iterator[Example]:
    if _unambiguous(clean):
        for text in dict.fromkeys((parts.noise(r, clean), clean)):
            try:
                example = interpret_example(text, gold)
            except wire.WireError as error:
                if text == clean:
                    failures.append(f"{text}\n   {compact(gold)}\n   {error}")
                continue
            if question(example) not in seen:
                seen.add(question(example))
                yield example
            break


def converse_example(request: ConverseRequest, gold: dict[str, Any]) -> Example:
    """One example of the converse decision. WireError where the text lacks a trial of the gold utterance."""
    found = conversing.mentions(request)
    answer = conversing.compress(conversing.Utterance(**gold), found)
    conversing.expand(answer, request, found)
    return conversation(prompting.converse_messages(request, found), answer)


def saying_examples(number: int, seed: str) -> Iterator[Example]:
    """Examples of what people say, without those in which noise destroyed the name of a trial."""
    r, seen = random.Random(seed), set[str]()
    while len(seen) < number:
        try:
            example = converse_example(*sayings.saying(r))
        except wire.WireError:
            continue
        if question(example) not in seen:
            seen.add(question(example))
            yield example


def handwritten_sayings(path: Path) -> Iterator[Example]:
    """What people say, written by hand."""
    for line in path.read_text().splitlines():
        case = json.loads(line)
        yield converse_example(sayings.request(case["text"], case["last_trial"]), case["gold"])


def handwritten_examples(path: Path, r: random.Random) -> Iterator[Example]:
    """Examples written by hand, most with other names of files; a value that the finder lacks is an error."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        case = json.loads(line)
        try:
            yield interpret_example(*naming.renamed(r, case["goal"], case["gold"]))
            continue
        except wire.WireError:
            pass
        try:
            yield interpret_example(case["goal"], case["gold"])
        except wire.WireError as error:
            raise SystemExit(f"{path.name}:{number}: {case['goal'][:200]}\n   {error}") from error


def write(path: Path, examples: list[Example]) -> None:
    """One JSON object a line."""
    path.write_text("".join(compact(example) + "\n" for example in examples))


def token_counts(examples: list[Example], tokenizer: Path) -> list[int]:
    """Tokens of prompt and answer together."""
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(tokenizer)).encode
    return [len(encode(question(example) + example["messages"][-1]["content"]).ids) + 1 for example in examples]


CLAUSES = clauses.load(HERE / "clauses.jsonl")


def composed(r: random.Random) -> Iterator[parts.Part]:
    """A goal of clauses written by hand, with other names of files."""
    yield naming.renamed(r, *clauses.goal(r, CLAUSES))


def lengthened(r: random.Random) -> Iterator[parts.Part]:
    """A goal written by hand that says more at its end."""
    case = r.choice(WHOLE)
    if case["gold"]["s"] == "ready" and case["gold"]["do"] == "train":
        yield naming.renamed(r, *clauses.lengthened(r, (case["goal"], case["gold"]), CLAUSES))


GRAMMARS: dict[str, tuple[Callable[[random.Random], Iterable[parts.Part]], int]] = {
    "composed": (composed, 900),
    "lengthened": (lengthened, 300),
    "goals": (lambda r: (grammar.goal(r),), 140),
    "two_files": (tuning_goals.two_files, 240),
    "tuning": (lambda r: (tuning_goals.goal(r),), 200),
    "blocked": (lambda r: (refusals.blocked(r),), 80),
    "honest": (lambda r: (refusals.honest(r),), 60),
    "demands": (refusals.demanded_or_forbidden, 220),
    "contrasts": (refusals.contrast, 100),
    "rich": (lambda r: (extras.rich(r),), 190),
    "lacking": (extras.lacking, 200),
    "answered": (lambda r: (extras.answered(r),), 60),
    "untrained": (lambda r: (r.choice((other_goals.evaluate, other_goals.compare, other_goals.build))(r),), 90),
    "small_talk": (lambda r: (extras.small_talk(r),), 50),
}
"""Grammars of goals, and how many examples each gives."""


def examples(args: argparse.Namespace, failures: list[str]) -> dict[str, list[Example]]:
    """All examples by where they come from."""
    r = random.Random(args.seed + 1)
    found = {
        name: list(grammar_examples(make, getattr(args, name), f"{name} {args.seed}", failures))
        for name, (make, _) in GRAMMARS.items()
    }
    repaired = (repair_example(*grammar.pretrain(r), r) for _ in range(4 * args.repairs))
    found["repair"] = [example for example in repaired if example is not None][: args.repairs]
    proposed = (propose_example(r) for _ in range(args.proposals))
    found["propose"] = list({question(example): example for example in proposed}.values())
    found["sayings"] = list(saying_examples(args.sayings, f"sayings {args.seed}"))
    found["handwritten"] = [example for _ in range(args.repeat) for example in handwritten(r)]
    return found


HANDWRITTEN = sorted(path for path in HERE.glob("handwritten*.jsonl") if path.stem != "handwritten_converse")
WHOLE = [json.loads(line) for path in HANDWRITTEN for line in path.read_text().splitlines()]


def handwritten(r: random.Random) -> Iterator[Example]:
    """Everything written by hand, once."""
    for path in HANDWRITTEN:
        yield from handwritten_examples(path, r)
    yield from handwritten_sayings(HERE / "handwritten_converse.jsonl")


def held_out(parts: list[str]) -> Iterator[Example]:
    """Goals and sayings that nothing like is trained on, as far as the finder knows their values."""
    for line in (HERE / "heldout_third.jsonl").read_text().splitlines() if parts != ["sayings"] else ():
        case = json.loads(line)
        with suppress(wire.WireError):
            yield interpret_example(case["goal"], case["gold"])
    if "sayings" in parts:
        yield from handwritten_sayings(HERE / "heldout_converse.jsonl")


PARTS = (*GRAMMARS, "sayings", "proposals", "repairs", "repeat")
"""What the corpus is made of; `repeat` is what was written by hand."""


def arguments() -> argparse.Namespace:
    """The command line; parts that are not asked for have no examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name, (_, number) in GRAMMARS.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--sayings", type=int, default=380)
    parser.add_argument("--proposals", type=int, default=80)
    parser.add_argument("--repairs", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=1, help="copies of what was written by hand")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts; default: all")
    parser.add_argument("--held", type=int, help="rows of dev.jsonl, and of test.jsonl; default: 1 in 40, and all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path)
    args = parser.parse_args()
    for name in set(PARTS) - set(args.only):
        setattr(args, name, 0)
    return args


def main() -> None:
    """Write train.jsonl, dev.jsonl and test.jsonl, and print the counts."""
    args = arguments()
    failures: list[str] = []
    found = examples(args, failures)
    everything = [example for part in found.values() for example in part]
    random.Random(args.seed + 2).shuffle(everything)
    args.out.mkdir(parents=True, exist_ok=True)
    held = args.held or len(everything) // 40
    unseen = list(held_out(args.only))[: args.held]
    for name, rows in (("train", everything[held:]), ("dev", everything[:held]), ("test", unseen)):
        write(args.out / f"{name}.jsonl", rows)
    counts: dict[str, int] = {name: len(part) for name, part in found.items()}
    counts |= {"train": len(everything) - held, "dev": held, "test": len(unseen)}
    counts["grammar_goals_refused"] = len(failures)
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
