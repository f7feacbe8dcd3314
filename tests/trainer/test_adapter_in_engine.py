import asyncio
import json

import pytest

from nightsmith.agent.backends import ChatBackend
from nightsmith.model.planner_server import ensure, stop
from nightsmith.trainer.adapter import SftConfig, train

WORDS = ["zebra", "anvil", "quartz", "velvet", "zebra", "quartz", "anvil", "velvet"]
SCHEMA = {
    "type": "object",
    "properties": {"word": {"enum": sorted(set(WORDS))}},
    "required": ["word"],
    "additionalProperties": False,
}


def messages(i):
    # Without a system message the engine's chat template would put its own in front.
    system = {"role": "system", "content": "Answer in JSON."}
    return [system, {"role": "user", "content": f"Say the word of door number {i + 1}."}]


def said_words(adapter):
    async def ask_all():
        backend = ChatBackend(adapter=adapter)
        return [await backend.complete(messages(i), SCHEMA, max_tokens=30) for i in range(len(WORDS))]

    try:
        return [json.loads(answer.text)["word"] for answer in asyncio.run(ask_all())]
    finally:
        stop(ensure(adapter))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_engine_says_what_the_adapter_learned(tmp_path):
    answers = [json.dumps({"word": word}, separators=(",", ":")) for word in WORDS]
    rows = [{"messages": [*messages(i), {"role": "assistant", "content": said}]} for i, said in enumerate(answers)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = SftConfig(
        data=tmp_path / "rows.jsonl",
        out=tmp_path / "out",
        batch_size=8,
        num_epochs=40,
        learning_rate=2e-3,
        compiled=False,
    )
    result = train(config)
    assert result["loss"] < 0.05
    assert said_words(tmp_path / "out" / "adapter.gguf") == WORDS
    assert said_words(None) != WORDS
