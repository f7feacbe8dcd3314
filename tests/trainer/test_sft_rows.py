import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightsmith.model.chat_rows import NotConversation
from nightsmith.model.small4_tokenizer import small4_tokenizer
from nightsmith.record.digest import file_digest
from nightsmith.trainer.sft_rows import IGNORED, training_rows
from nightsmith.trainer.spec import ModelRef, SftSpec

TOKENIZER = small4_tokenizer()
TOOLS = [{"type": "function", "function": {"name": "add", "description": "", "parameters": {}}}]


def calling(arguments: str) -> dict:
    call = {"id": "abcdefghi", "function": {"name": "add", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


TURNS = [
    {"role": "user", "content": "1 + 2?"},
    calling('{"a": 1}'),
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "3"},
    {"role": "assistant", "content": "3"},
]


def spec(folder, messages, tools) -> SftSpec:
    path = folder / "train.parquet"
    pq.write_table(pa.table({"row_id": ["r"], "messages": [json.dumps(messages)], "tools": [tools]}), path)
    return SftSpec(
        model=ModelRef(path="m", weights_digest="0"), data=str(path), data_digest=file_digest(path), num_steps=1
    )


def test_calls_and_answers_are_trained_and_tools_and_results_are_read(tmp_path):
    rows = training_rows(spec(tmp_path, TURNS, json.dumps(TOOLS)), TOKENIZER)
    assert TOKENIZER.decode(rows.ids[0]).startswith('<s>[AVAILABLE_TOOLS][{"type": "function"')
    trained = [label for label in rows.labels[0] if label != IGNORED]
    assert TOKENIZER.decode(trained) == '[TOOL_CALLS]add[ARGS]{"a": 1}</s>3</s>'


@pytest.mark.parametrize(
    ("turns", "tools"),
    [
        (TURNS, '{"add": 1}'),
        (TURNS, "[1]"),
        ([TURNS[0], calling("[")], None),
        ([TURNS[0], calling("[1]")], None),
        ([TURNS[0], {"role": "robot", "content": "x"}], None),
    ],
)
def test_rows_with_broken_tools_calls_or_roles_are_named(tmp_path, turns, tools):
    with pytest.raises(NotConversation, match="Row r"):
        training_rows(spec(tmp_path, turns, tools), TOKENIZER)
