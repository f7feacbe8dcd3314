import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftConfig
from safetensors.torch import load_file
from tiny_llama import write_tiny_llama

from nightsmith.model.load import load_tokenizer
from nightsmith.record.errors import Damaged
from nightsmith.trainer.adapter_rows import (
    IGNORED,
    Lead,
    Row,
    batch_order,
    collate,
    common_prefix_len,
    cosine,
    family_prefix_lens,
    read_rows,
    shared,
)


def tokens(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Row:
    return Row((*prompt, *answer), (*[IGNORED] * len(prompt), *answer))


ROWS = st.lists(st.integers(1, 40).map(lambda n: tokens(tuple(range(2, 2 + n)), (5, 1))), min_size=1, max_size=60)


def row(prompt: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


DATA = [
    row(f"goal {verb} {noun} until", f"good {'sft' if verb == 'train' else 'dpo'}")
    for verb in ("train", "evaluate")
    for noun in ("tickets", "mails", "notes")
] * 4


@given(ROWS, st.integers(1, 7), st.integers(0, 5))
def test_every_epoch_shows_every_row_once_and_the_order_depends_on_nothing_else(rows, batch_size, seed):
    steps = -(-len(rows) // batch_size)
    order = list(batch_order(rows, batch_size, 2 * steps, seed))
    assert sorted(i for batch in order[:steps] for i in batch) == list(range(len(rows)))
    assert order == list(batch_order(rows, batch_size, 2 * steps, seed))
    assert order[:steps] == list(batch_order(rows, batch_size, steps, seed))


@given(ROWS)
def test_a_batch_asks_for_exactly_the_completions_each_after_its_prompt(rows):
    prefix_len = common_prefix_len(rows)
    batch = collate(rows, prefix_len)
    for i, row in enumerate(rows):
        inputs = [*batch.prefix_ids_P.tolist(), *batch.ids_NL[i].tolist()]
        asked = [(p, t) for p, t in enumerate(batch.targets_NL[i].tolist()) if t != IGNORED]
        assert [t for _, t in asked] == [5, 1]
        assert inputs[: len(row)] == list(row.ids)
        assert asked[0][0] + prefix_len == len(row.prompt) - 1


@given(ROWS)
def test_the_first_tokens_of_every_answer_count_as_much_as_asked_and_nothing_else_does(rows):
    batch = collate(rows, common_prefix_len(rows), lead=Lead(tokens=1, weight=4))
    for targets, weights in zip(batch.targets_NL, batch.weights_NL, strict=True):
        assert weights[targets != IGNORED].tolist() == [4, 1]
        assert weights[targets == IGNORED].count_nonzero() == 0


def test_of_several_answers_in_a_row_each_is_asked_for_and_each_beginning_counts_more():
    labels = (IGNORED, IGNORED, 5, 6, IGNORED, 7, 8)
    batch = collate([Row((2, 3, 5, 6, 4, 7, 8), labels)], prefix_len=1, multiple=1, lead=Lead(tokens=1, weight=3))
    assert batch.targets_NL.tolist() == [[5, 6, IGNORED, 7, 8, IGNORED]]
    assert batch.weights_NL is not None
    assert batch.weights_NL.tolist() == [[3, 1, 0, 3, 1, 0]]


def test_rows_of_one_family_share_its_beginning_and_a_mixed_batch_shares_what_both_begin_with():
    first = [tokens((1, 2, *range(10, 20), n), (5,)) for n in (3, 4)]
    second = [tokens((1, 3, *range(30, 50), n), (5,)) for n in (3, 4)]
    prefix_lens = family_prefix_lens([*first, *second])
    assert (shared(first, prefix_lens), shared(second, prefix_lens)) == (12, 22)
    assert shared([*first, *second], prefix_lens) == 1


def test_the_learning_rate_warms_up_and_ends_near_zero():
    factors = [cosine(step, 100, 0.05) for step in range(100)]
    assert factors[:5] == [pytest.approx((i + 1) / 5) for i in range(5)]
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert 0 < factors[-1] < 0.03


def test_a_row_too_long_is_refused_by_its_line_not_cut(tmp_path):
    tokenizer = load_tokenizer(write_tiny_llama(tmp_path))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row("goal " * n, "good")) for n in (2, 50)))
    with pytest.raises(Damaged, match=r"line 2: 52 tokens, allowed are 20"):
        read_rows(path, tokenizer, max_len=20)


def write_config(folder: Path, base: Path, out: str) -> Path:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, DATA)))
    config = {"data": folder / "rows.jsonl", "dev": folder / "rows.jsonl", "out": folder / out, "base": base}
    config |= {"batch_size": 4, "num_epochs": 10, "learning_rate": 0.01, "rank": 4, "alpha": 8, "threads": 1}
    config |= {"compiled": False, "checkpoint_every_s": 1e-6}
    path = folder / f"{out}.json"
    path.write_text(json.dumps(config, default=str))
    return path


def start(config: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "nightsmith.trainer.adapter", str(config)]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL)


def wait_for_a_checkpoint(out: Path, process: subprocess.Popen[bytes]) -> None:
    while not list(out.glob("checkpoint-*")):
        assert process.poll() is None, "ended before its first checkpoint"
        time.sleep(0.01)


def test_a_run_that_was_killed_and_stopped_ends_with_the_same_bits_as_one_that_was_not(tmp_path):
    base = write_tiny_llama(tmp_path / "base")
    undisturbed = start(write_config(tmp_path, base, "whole"))
    config, out = write_config(tmp_path, base, "broken"), tmp_path / "broken"
    killed = start(config)
    wait_for_a_checkpoint(out, killed)
    killed.kill()
    killed.wait()
    at_kill = {p.name for p in out.glob("checkpoint-*")}
    stopped = start(config)
    while {p.name for p in out.glob("checkpoint-*")} <= at_kill:
        assert stopped.poll() is None
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 0
    assert json.loads((out / "result.json").read_text())["steps"] < 60
    assert start(config).wait() == 0
    assert undisturbed.wait() == 0

    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "broken")]
    assert [r["steps"] for r in results] == [60, 60]
    assert results[0]["dev_loss"] == results[1]["dev_loss"] < 0.5
    assert PeftConfig.from_pretrained(out).r == 4
    whole, broken = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert (tmp_path / "whole/adapter.gguf").read_bytes() == (out / "adapter.gguf").read_bytes()
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-60"]
