"""The corpus script: its examples are what the planner is asked and may answer, and a seed fixes them."""

import json
import subprocess
import sys
from pathlib import Path

from nightsmith.agent import prompting, proposals, wire_schema

SCRIPT = Path(__file__).parents[2] / "examples" / "planner" / "corpus.py"


def written(out: Path) -> list[dict[str, str]]:
    command = [sys.executable, str(SCRIPT), str(out), "--goals", "60", "--proposals", "40", "--repeat", "0"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    lines = [*(out / "train.jsonl").read_text().splitlines(), *(out / "dev.jsonl").read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_a_seed_fixes_the_corpus_and_every_example_is_a_prompt_with_a_compact_answer(tmp_path: Path):
    examples = written(tmp_path / "a")
    assert examples == written(tmp_path / "b")
    assert len(examples) >= 100
    for example in examples:
        answer = json.loads(example["completion"])
        assert example["prompt"].startswith("<|im_start|>system\nYou plan training experiments")
        assert example["prompt"].endswith("<|im_start|>assistant\n")
        assert json.dumps(answer, separators=(",", ":"), ensure_ascii=False) == example["completion"]
        allowed = proposals.schema(1) if "t" in answer else wire_schema.SCHEMA
        branches = [allowed, *allowed.get("anyOf", [])]
        assert any(set(answer) <= set(branch.get("properties", {})) for branch in branches)


def test_the_system_prompt_is_short():
    system = prompting.interpret_messages("hello", ())[0]["content"]
    assert len(system.split()) < 100
