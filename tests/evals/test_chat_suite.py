"""Answers by generation: the same as one row after the other without batch, padding or cache, and scored as text."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import chat_suite
from tiny_models import TEMPLATE, write_model
from torch.nn import functional as F

from nightsmith.evals import stats
from nightsmith.evals.answers import exact_match, token_f1
from nightsmith.evals.effects import ShareEffect
from nightsmith.evals.run import evaluate, summarise
from nightsmith.evals.suite import Items, read_items, select_conversations
from nightsmith.evals.types import SuiteSpec
from nightsmith.model.chat_rows import ChatFormat
from nightsmith.model.load import load, load_tokenizer
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError

torch.set_num_threads(1)
PAIRS = [("Wie oft?" * (1 + i % 5), "x" * (1 + i % 7)) for i in range(9)]
WORDS = st.lists(st.sampled_from(["neustart", "bitte", "warten", "12"]), min_size=1, max_size=6)


class Asked:
    """A model with its tokenizer and a suite."""

    def __init__(self, folder: Path, template: str | None, family: str = "llama", **suite: Any) -> None:
        self.folder = folder
        place = write_model(folder / "model", family, chat_template=template)
        self.model, self.tokenizer = load(place), load_tokenizer(place)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.mul_(8.0)  # fresh weights say the same to whatever is asked
        self.suite = chat_suite(folder, PAIRS, max_new_tokens=12, **suite)

    def items(self) -> Items:
        found = evaluate(self.model, self.suite, self.folder, checkpoint_digest="c" * 64, tokenizer=self.tokenizer)
        return read_items(self.folder / found.items, found.items_digest)

    def telling_end(self) -> str:
        """The token that ends answers at the most different lengths: an end that is really met."""
        given = self.greedy(())
        tokens = sorted({token for answer in given for token in answer})
        best = max(tokens, key=lambda token: len({a.index(token) if token in a else len(a) for a in given}))
        return self.tokenizer.convert_ids_to_tokens(best)

    @torch.inference_mode()
    def greedy(self, stops: tuple[int, ...]) -> list[list[int]]:
        """Answers of each row by itself, every token from the whole text anew."""
        answers: list[list[int]] = []
        for row in self.rows():
            ids = list(row.ids[: row.answer_start])
            start = len(ids)
            while len(ids) - start < self.suite.max_new_tokens:
                token = int(self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
                if token in stops:
                    break
                ids.append(token)
            answers.append(ids[start:])
        return answers

    def rows(self) -> list[Any]:
        chat = ChatFormat(self.tokenizer)
        return chat.last_answers([row.messages for row in select_conversations(self.suite)])


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
@pytest.mark.parametrize("template", [None, "Antworte immer kurz.\n" + TEMPLATE], ids=["plain", "shared beginning"])
def test_batched_answers_are_those_of_each_row_alone(tmp_path: Path, template: str | None, family: str) -> None:
    asked = Asked(tmp_path, template, family)
    asked.tokenizer.eos_token = asked.telling_end()
    chat = ChatFormat(asked.tokenizer)
    expected = asked.greedy(chat.stop_ids)
    items = asked.items()
    assert items.answer == tuple(chat.answer_text(ids) for ids in expected)
    assert items.output_tokens is not None
    assert items.output_tokens.tolist() == [len(ids) for ids in expected]
    assert len({len(ids) for ids in expected}) > 1


@torch.inference_mode()
def test_likelihoods_are_those_of_each_row_alone(tmp_path: Path) -> None:
    asked = Asked(tmp_path, "Antworte immer kurz.\n" + TEMPLATE)
    expected = []
    for row in asked.rows():
        logits = asked.model(input_ids=torch.tensor([row.ids])).logits[0, row.answer_start - 1 : -1]
        expected.append(F.cross_entropy(logits, torch.tensor(row.ids[row.answer_start :]), reduction="sum").item())
    items = asked.items()
    np.testing.assert_allclose(items.nll_nats, expected, rtol=1e-4)
    assert items.num_tokens.tolist() == [len(answer) + 1 for _, answer in PAIRS]


def test_metrics_are_means_over_items_of_what_was_said(tmp_path: Path) -> None:
    items = Asked(tmp_path, None).items()
    assert items.answer is not None
    metrics = summarise(items)
    references = [answer for _, answer in PAIRS]
    assert metrics["exact_match"] == np.mean(
        [exact_match(*pair) for pair in zip(items.answer, references, strict=True)]
    )
    assert metrics["token_f1"] == np.mean([token_f1(*pair) for pair in zip(items.answer, references, strict=True)])


def test_a_suite_that_asks_for_no_answers_generates_none(tmp_path: Path) -> None:
    items = Asked(tmp_path, None, answers=False).items()
    assert items.answer is None
    assert "exact_match" not in summarise(items)


def pairs_of(folder: Path, rejected: list[str]) -> SuiteSpec:
    """A suite of PAIRS, each with a worse answer."""
    suite = chat_suite(folder, PAIRS, max_new_tokens=12)
    table = pq.read_table(suite.data)
    worse = [json.loads(row)[:-1] for row in table["messages"].to_pylist()]
    turns = [[*each, {"role": "assistant", "content": text}] for each, text in zip(worse, rejected, strict=True)]
    pq.write_table(table.append_column("rejected", pa.array([json.dumps(each) for each in turns])), suite.data)
    return suite.model_copy(update={"pairs": True, "data_digest": file_digest(Path(suite.data))})


@torch.inference_mode()
def test_pairs_are_compared_by_the_likelihood_that_each_answer_has_by_itself(tmp_path: Path) -> None:
    asked = Asked(tmp_path, "Antworte immer kurz.\n" + TEMPLATE)
    worse = ["y" * (1 + i % 4) for i in range(len(PAIRS))]
    asked.suite = pairs_of(tmp_path, worse)
    items = asked.items()
    turned = chat_suite(tmp_path, [(q, b) for (q, _), b in zip(PAIRS, worse, strict=True)], answers=False)
    asked.suite = turned
    expected = asked.items().nll_nats - items.nll_nats
    assert items.margin is not None
    assert items.accuracy is not None
    np.testing.assert_allclose(items.margin, expected, rtol=1e-4, atol=1e-4)
    assert items.accuracy.tolist() == [float(margin > 0) for margin in expected]
    metrics = summarise(items)
    assert (metrics["accuracy"], metrics["margin"]) == (items.accuracy.mean(), pytest.approx(items.margin.mean()))
    assert items.answer is not None
    assert stats.value(items, "accuracy") == metrics["accuracy"]
    assert isinstance(stats.own_effect(items, "accuracy"), ShareEffect)


def test_pairs_without_a_worse_answer_to_the_same_prompt_are_refused_by_their_id(tmp_path: Path) -> None:
    with pytest.raises(NightsmithError, match=r"Row r000 has no rejected answer to its prompt.*rows='preference'"):
        select_conversations(chat_suite(tmp_path, PAIRS).model_copy(update={"pairs": True}))


def test_a_row_that_does_not_fit_into_the_context_is_refused_by_its_id(tmp_path: Path) -> None:
    asked = Asked(tmp_path, None)
    asked.suite = chat_suite(tmp_path, [("x" * 250, "y")], max_new_tokens=12)
    with pytest.raises(NightsmithError, match="Row r000 needs 263 tokens with its answer; the model's context has 256"):
        asked.items()


def test_progress_may_end_an_evaluation_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    asked, told = Asked(tmp_path, None), []
    model, suite, tokenizer = asked.model, asked.suite, asked.tokenizer

    def on_batch(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, suite, tmp_path, checkpoint_digest="c", tokenizer=tokenizer, on_batch=on_batch)
    assert told[-1] == (len(PAIRS), 2 * len(PAIRS))
    assert not (tmp_path / "items.parquet").exists()


@pytest.mark.parametrize(
    ("answer", "reference", "match", "f1"),
    [
        ("Neustart.", "Neustart.", 1, 1),
        ("  Neu\n start ", "Neu start", 1, 1),
        ("neustart", "Neustart.", 0, 1),
        ("the answer is 12", "12", 0, 0.5),
        ("1.5", "15", 0, 1),
        ("", "12", 0, 0),
        ("+", "-", 0, 0),
        ("e\u0301", "\u00e9", 1, 1),
        ("ja ja", "ja", 0, 2 / 3),
    ],
)
def test_exact_match_is_strict_and_token_f1_is_that_of_squad(
    answer: str, reference: str, match: float, f1: float
) -> None:
    assert exact_match(answer, reference) == match
    assert token_f1(answer, reference) == pytest.approx(f1)


@given(WORDS, WORDS)
def test_token_f1_is_the_harmonic_mean_of_precision_and_recall(said: list[str], wanted: list[str]) -> None:
    shared = sum((Counter(said) & Counter(wanted)).values())
    precision, recall = shared / len(said), shared / len(wanted)
    expected = 2 * precision * recall / (precision + recall) if shared else 0.0
    assert math.isclose(token_f1(" ".join(said), " ".join(wanted)), expected)
