"""Prompts of a reinforcement learning job, rendered as evaluation renders them, and their order. Torch-free."""

import random
from dataclasses import dataclass
from typing import Any

from nightsmith.model.chat_rows import ChatFormat, Message, TokenRow, parse_messages, parse_tools
from nightsmith.record.errors import NightsmithError
from nightsmith.trainer.grpo_spec import GrpoSpec
from nightsmith.trainer.training_file import read_columns


@dataclass(frozen=True)
class Prompt:
    """A question, and what is known of its answer."""

    row_id: str
    source: str
    """Name of the row, `label/file:index`; "" where the file has no such column."""
    messages: tuple[Message, ...]
    """The turns to answer."""
    reference: str
    """The row's last turn."""
    ids: tuple[int, ...]
    """The turns as tokens, up to where the answer begins."""


@dataclass(frozen=True)
class PromptRows:
    """All prompts of a run, by row id."""

    prompts: dict[str, Prompt]
    chat: ChatFormat
    """How they were rendered, and how answers end."""
    num_too_long: int = 0
    """Rows left out because they leave no room for an answer."""

    def metrics(self) -> dict[str, float]:
        """What was read, as metrics."""
        return {"data/rows": float(len(self.prompts)), "data/rows_too_long": float(self.num_too_long)}


def prompt_rows(spec: GrpoSpec, tokenizer: Any) -> PromptRows:
    """The prompts that a spec trains on.

    Raises:
        EvidenceAltered: the data are not those with the spec's digest.
        NightsmithError: the data have no conversations, or none is short enough.
    """
    table = read_columns(
        spec.data, spec.data_digest, ("row_id", "messages"), optional=("tools", "source"),
        hint="Build the dataset with rows='chat'.",
    )  # fmt: skip
    chat, names = ChatFormat(tokenizer), table["row_id"]
    messages = list(map(parse_messages, table["messages"], names))
    rendered = chat.last_answers(messages, list(map(parse_tools, table["tools"], names)))
    rows = zip(names, table["source"], messages, rendered, strict=True)
    prompts = [_prompt(*row) for row in rows]
    fitting = {each.row_id: each for each in prompts if len(each.ids) + spec.max_completion_length <= spec.max_len}
    if not fitting:
        raise NightsmithError(
            f"No prompt of {spec.data} leaves room for an answer of {spec.max_completion_length} tokens within "
            f"{spec.max_len}. Raise max_len, or lower max_completion_length."
        )
    return PromptRows(fitting, chat, len(prompts) - len(fitting))


def order(rows: PromptRows, num_prompts: int, seed: int) -> list[str]:
    """Row ids in the order in which they are drawn: all of them, then all of them otherwise, and so on."""
    names, generator, drawn = sorted(rows.prompts), random.Random(seed), list[str]()
    while len(drawn) < num_prompts:
        drawn += generator.sample(names, len(names))
    return drawn[:num_prompts]


def _prompt(row_id: str, source: str, messages: tuple[Message, ...], row: TokenRow) -> Prompt:
    return Prompt(row_id, source, messages[:-1], messages[-1]["content"], row.ids[: row.answer_start])
