import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from nightsmith.model import export_worker
from nightsmith.model.export import ExportFailed, ExportRequest, export
from nightsmith.model.files import WEIGHTS, weights_digest
from nightsmith.model.gguf_check import ask
from nightsmith.model.load import load
from nightsmith.model.lora import add_adapters, write_base
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build
from nightsmith.model.small4_tokenizer import VOCABULARY, small4_tokenizer
from nightsmith.record.errors import NightsmithError

torch.set_num_threads(1)
TOKENIZER = small4_tokenizer()
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 11, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.2, "head_dim": 16, "max_position_embeddings": 512,
}  # fmt: skip
NANO = PRESETS["nano"].model_copy(update={"vocab_size": VOCABULARY})
PROMPT = [1, 3, *TOKENIZER("def train(model):")["input_ids"], 4]


def write_llama(folder: Path, kind: str = "Llama", **fields: Any) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES | fields)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def write(checkpoint: Path, folder: Path, form: Any, precision: Any = None):
    folder.mkdir()
    request = ExportRequest(
        checkpoint=str(checkpoint), folder=str(folder), form=form, precision=precision, name=folder.name
    )
    return export_worker.export(request)


def greedy(model: Any, num_tokens: int = 12) -> list[int]:
    out = model.generate(torch.tensor([PROMPT]), max_new_tokens=num_tokens, do_sample=False, eos_token_id=None)
    return out[0, len(PROMPT) :].tolist()


def test_an_adapter_becomes_a_whole_model_that_computes_as_both(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    adapted = add_adapters(load(base), base=base, rank=2, alpha=8, seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    write_base(tmp_path / "adapter", base, weights_digest(base))
    written = write(tmp_path / "adapter", tmp_path / "whole", "safetensors")
    assert written.precision == "float32"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted.eval()(ids).logits, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "whole")("[INST]")["input_ids"] == [3]


def test_a_whole_model_keeps_its_bits_and_its_precision(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", dtype="bfloat16")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    written = write(base, tmp_path / "copy", "safetensors")
    assert written.precision == "bfloat16"
    assert (tmp_path / "copy" / WEIGHTS).read_bytes() == (base / WEIGHTS).read_bytes()


def test_small4_becomes_plain_mistral4_with_its_tokenizer(tmp_path: Path) -> None:
    model = build(NANO, seed=0, router_aux_loss_coef=0.01)
    model.save_pretrained(tmp_path / "small4")
    written = write(tmp_path / "small4", tmp_path / "plain", "safetensors")
    assert written.model_type == "small4"
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("mistral4", ["Mistral4ForCausalLM"])
    plain = transformers.Mistral4ForCausalLM.from_pretrained(tmp_path / "plain")
    assert greedy(plain) == greedy(model.eval())
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").chat_template == TOKENIZER.chat_template


def test_what_plain_mistral4_cannot_express_is_refused(tmp_path: Path) -> None:
    model = build(NANO, seed=0, balance_mode="bias")
    for layer in model.model.layers:
        layer.mlp.gate.bias_E.fill_(0.1)
    model.save_pretrained(tmp_path / "small4")
    with pytest.raises(NightsmithError, match="selection bias"):
        write(tmp_path / "small4", tmp_path / "plain", "safetensors")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Llama", {"tie_word_embeddings": True}),
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        ("Mistral", {"sliding_window": None}),
        ("Qwen3", {}),
    ],
)
def test_llama_cpp_continues_as_transformers_does(tmp_path: Path, kind: str, fields: dict) -> None:
    base = write_llama(tmp_path / "base", kind, **fields)
    written = write(base, tmp_path / "gguf", "gguf", "float32")
    [path] = [tmp_path / "gguf" / name for name in written.files]
    told = ask(path, "/completion", {"prompt": PROMPT, "n_predict": 12, "temperature": 0, "return_tokens": True,
                                     "ignore_eos": True})  # fmt: skip
    assert told["tokens"] == greedy(load(base))


def test_half_precisions_take_the_room_that_they_should(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    sizes = {}
    for precision in ("float32", "float16", "q8_0"):
        written = write(base, tmp_path / precision, "gguf", precision)
        sizes[precision] = sum((tmp_path / precision / name).stat().st_size for name in written.files)
    weights = 4 * written.num_parameters
    assert sizes["float32"] - sizes["float16"] == pytest.approx(weights / 2, rel=0.02)
    assert sizes["float32"] - sizes["q8_0"] == pytest.approx(weights * (1 - 34 / 128), rel=0.02)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"attention_bias": True}, "biases"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rotary embeddings of type"),
    ],
)
def test_gguf_refuses_what_it_cannot_hold_and_says_what_is_possible(tmp_path: Path, fields: dict, told: str) -> None:
    base = write_llama(tmp_path / "base", **fields)
    with pytest.raises(NightsmithError, match=f"{told}.*Possible are.*safetensors"):
        write(base, tmp_path / "gguf", "gguf")


def test_gguf_refuses_mixtures_of_experts_by_their_type(tmp_path: Path) -> None:
    build(NANO, seed=0).save_pretrained(tmp_path / "small4")
    with pytest.raises(NightsmithError, match=r"models of type 'small4' cannot.*Possible are"):
        write(tmp_path / "small4", tmp_path / "gguf", "gguf")


def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    content = json.loads((base / "tokenizer.json").read_text())
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{N}{1,3}|.\p{L}?"
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(NightsmithError, match="other tokens than the model's own tokenizer"):
        write(base, tmp_path / "gguf", "gguf")


@pytest.mark.slow
def test_the_child_process_tells_what_was_wrong(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    (base / WEIGHTS).write_bytes(b"")
    request = ExportRequest(checkpoint=str(base), folder=str(tmp_path), form="safetensors", name="out")
    with pytest.raises(ExportFailed, match=r"could not be exported: .*model\.safetensors is no whole"):
        export(request)
