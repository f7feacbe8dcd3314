"""The corpus script: its examples are what the planner is asked and may answer, and a seed fixes them."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nightsmith.agent import conversing, prompting, proposals, wire_schema
from nightsmith.agent.conversing import ConverseRequest, Utterance

EXAMPLES = Path(__file__).parents[2] / "examples" / "planner"
SCRIPT = EXAMPLES / "corpus.py"
SMALL = {"goals": 40, "tuning": 60, "blocked": 30, "honest": 20, "contrasts": 20, "sayings": 80, "proposals": 30}
SMALL |= {"demands": 20, "rich": 30, "lacking": 30, "small_talk": 30, "composed": 60, "lengthened": 20}
HELD_OUT = {"heldout.jsonl": 60, "heldout_second.jsonl": 60, "heldout_tuning.jsonl": 40, "heldout_converse.jsonl": 80}
HELD_OUT |= {"heldout_converse_second.jsonl": 60, "heldout_third.jsonl": 150, "honeypots.jsonl": 100}
DEMOS = (
    "Pre-train a small mixture-of-experts language model from scratch on ",
    "Fine-tune SmolLM2-135M-Instruct with LoRA on reasoning-gym:",
)
"""Beginnings of the demonstrations' goals: they are trained and measured with other numbers."""


def written(out: Path, repeat: int = 0) -> list[dict[str, list[dict[str, str]]]]:
    counts = [part for name, number in SMALL.items() for part in (f"--{name}", str(number))]
    command = [sys.executable, str(SCRIPT), str(out), *counts, "--repairs", "5", "--repeat", str(repeat)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    lines = [*(out / "train.jsonl").read_text().splitlines(), *(out / "dev.jsonl").read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_a_seed_fixes_the_corpus_and_every_example_is_a_prompt_with_a_compact_answer(tmp_path: Path):
    examples = written(tmp_path / "a")
    assert examples == written(tmp_path / "b")
    assert len(examples) >= 250
    for example in examples:
        (system, *asked, answered) = example["messages"]
        answer = json.loads(answered["content"])
        assert system["content"].startswith(("You plan training", "You sort"))
        assert [turn["role"] for turn in (system, *asked, answered)][:2] == ["system", "user"]
        assert (asked[-1]["role"], answered["role"]) == ("user", "assistant")
        assert json.dumps(answer, separators=(",", ":"), ensure_ascii=False) == answered["content"]
        allowed = conversing.schema() if "k" in answer else proposals.schema(1) if "t" in answer else wire_schema.SCHEMA
        branches = [allowed, *allowed.get("anyOf", [])]
        assert any(set(answer) <= set(branch.get("properties", {})) for branch in branches)


def test_the_system_prompt_is_short():
    system = prompting.interpret_messages("hello", ())[0]["content"]
    assert len(system.split()) < 100


def test_what_is_asked_about_a_saying_is_short():
    request = ConverseRequest(text="why was trial 2 rejected?", study="s", trials=(0, 1, 2, 3))
    asked = prompting.chat_text(prompting.converse_messages(request, conversing.mentions(request)))
    assert len(asked.split()) < 60


def cases(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text().splitlines()]


@pytest.mark.parametrize(
    "name", ["handwritten_converse.jsonl", "heldout_converse.jsonl", "heldout_converse_second.jsonl"]
)
def test_the_gold_utterances_of_sayings_can_be_said_and_come_back(name: str):
    for case in cases(name):
        last, gold = case["last_trial"], Utterance(**case["gold"])
        trials = () if last is None else tuple(range(last + 1))
        request = ConverseRequest(text=case["text"], study=None if last is None else "s", trials=trials)
        found = conversing.mentions(request)
        assert conversing.expand(conversing.compress(gold, found), request, found) == gold


def test_other_names_of_files_leave_what_a_goal_means_as_it_is():
    sys.path.insert(0, str(EXAMPLES))
    import naming

    gold = {"do": "train", "model": "./bot", "data": [{"r": "a.csv"}, {"r": "./notes", "as": "test"}]}
    texts = set[str]()
    for seed in range(20):
        text, answer = naming.renamed(random.Random(seed), "Fine-tune ./bot on a.csv, test on ./notes and bot2.", gold)
        first, second = (ref["r"] for ref in answer["data"])
        assert text == f"Fine-tune {answer['model']} on {first}, test on {second} and bot2."
        assert first.endswith(".csv")
        texts.add(text)
    assert len(texts) > 10


def words(text: str) -> list[str]:
    return re.sub(r"\d+", "0", re.sub(r"[^\w\s]", "", text.lower())).split()


def phrases(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + 3]) for i in range(len(found) - 2)} or {tuple(found)}


def likeness(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def test_nothing_held_out_is_trained_on_nor_anything_like_it(tmp_path: Path):
    prompts = [prompting.chat_text(example["messages"][:-1]) for example in written(tmp_path, repeat=1)]
    shown = [re.search(r"<(?:goal|said)>\n(.*?)\n</(?:goal|said)>", prompt, re.DOTALL) for prompt in prompts]
    trained = [phrases(re.sub(r" \[L\d+[^\]]*\]", "", match[1])) for match in shown if match]
    held = [case.get("goal") or case["text"] for name in HELD_OUT for case in cases(name)]
    assert len(trained) > 600
    copied = [text for text in held if any(likeness(phrases(text), other) > 0.6 for other in trained)]
    assert [text for text in copied if not text.startswith(DEMOS) and text != "42"] == []
    assert len(copied) < 12


def test_the_held_out_sets_are_large_enough_to_tell_planners_apart():
    assert all(len(cases(name)) >= least for name, least in HELD_OUT.items())
