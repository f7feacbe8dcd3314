import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from nightsmith.model.files import INDEX, WEIGHTS, weights_digest
from nightsmith.model.load import load, load_tokenizer
from nightsmith.model.lora import add_adapters, write_base
from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import Small4ForCausalLM, build, save_as_mistral4
from nightsmith.model.small4_tokenizer import TEKKEN, VOCABULARY
from nightsmith.record.errors import Damaged, NightsmithError

torch.set_num_threads(1)
IDS_BL = torch.arange(3, 27).view(2, 12)
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
NANO = PRESETS["nano"].model_copy(update={"vocab_size": VOCABULARY})


def tiny(kind: str) -> Any:
    torch.manual_seed(0)
    match kind:
        case "llama":
            return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
        case "qwen3_moe":
            return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**SIZES, **EXPERTS))
        case "gpt_oss":
            return transformers.GptOssForCausalLM(transformers.GptOssConfig(**SIZES, **EXPERTS))
        case _:
            return build(NANO, seed=0)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS_BL).logits


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gpt_oss", "small4"])
@pytest.mark.parametrize("shards", [False, True])
def test_models_load_as_they_were_saved_whole_or_in_shards(tmp_path: Path, kind: str, shards: bool) -> None:
    model = tiny(kind)
    model.save_pretrained(tmp_path, max_shard_size="20KB" if shards else "1GB")
    assert (tmp_path / INDEX).is_file() == shards
    assert torch.equal(logits(load(tmp_path)), logits(model))
    assert load(tmp_path, dtype=torch.bfloat16).lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gpt_oss", "small4"])
def test_adapters_are_added_into_their_base(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "base"
    tiny(kind).save_pretrained(base)
    adapted = add_adapters(load(base), base=base, rank=2, alpha=4, seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    write_base(tmp_path / "adapter", base, weights_digest(base))
    assert torch.allclose(logits(load(tmp_path / "adapter")), logits(adapted), atol=1e-5)


def released(folder: Path, model: Any) -> None:
    """The model as Small 4 is published: text part of an image and text model."""
    text = model.config.to_released_config()
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "head_dim": 8}  # fmt: skip
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    whole: Any = transformers.Mistral3ForConditionalGeneration(config)
    weights = model.state_dict()
    whole.lm_head.load_state_dict({"weight": weights.pop("lm_head.weight")})
    whole.model.language_model.load_state_dict({name.removeprefix("model."): w for name, w in weights.items()})
    whole.save_pretrained(folder)


def test_mistral4_as_released_loads_as_small4_without_its_image_part(tmp_path: Path) -> None:
    model = tiny("small4")
    released(tmp_path / "both", model)
    save_as_mistral4(model, tmp_path / "text")
    for folder in (tmp_path / "both", tmp_path / "text"):
        loaded = load(folder)
        assert type(loaded) is Small4ForCausalLM
        assert torch.allclose(logits(loaded), logits(model), atol=1e-6)
    assert torch.allclose(logits(Mistral4ForCausalLM.from_pretrained(tmp_path / "text")), logits(model), atol=1e-5)


def test_a_folder_with_mistrals_own_tokenizer_file_alone_has_a_tokenizer(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    shutil.copy(TEKKEN, tmp_path)
    assert load_tokenizer(tmp_path)("[INST]")["input_ids"] == [3]


def break_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def break_truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def break_garbage(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff" * 100)


def break_empty(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


def break_missing(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({name: w for name, w in weights.items() if "layers.1.self_attn.o_proj" not in name}, folder / WEIGHTS,
              metadata={"format": "pt"})  # fmt: skip


def break_shape(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"lm_head.weight": torch.zeros(3, 3)}, folder / WEIGHTS, metadata={"format": "pt"})


def break_layers(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)


def break_architecture(folder: Path) -> None:
    other = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES))
    save_file(
        {name: w.contiguous() for name, w in other.state_dict().items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )


def edit_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize("kind", ["llama", "small4"])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (break_pickle, r"pytorch_model\.bin, a pickle file.*refused"),
        (break_truncate, r"model\.safetensors is no whole safetensors file"),
        (break_garbage, r"model\.safetensors is no whole safetensors file"),
        (break_empty, r"model\.safetensors is no whole safetensors file"),
        (break_missing, r"1 tensors are missing \(model\.layers\.1\.self_attn\.o_proj\.weight\)"),
        (break_shape, r"1 are of another shape \(lm_head\.weight"),
        (break_layers, r"unknown to the config \(model\.layers\.1\."),
        (break_architecture, r"missing.*unknown to the config.*another architecture"),
    ],
)
def test_a_spoilt_checkpoint_is_refused_with_what_is_wrong(tmp_path: Path, kind: str, spoil: Any, told: str) -> None:
    tiny(kind).save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(NightsmithError, match=told):
        load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NightsmithError, match=r"no config\.json"):
        load(tmp_path)
    edit = tmp_path / "config.json"
    edit.write_text('{"model_type": "llama"}')
    with pytest.raises(NightsmithError, match="holds no weights"):
        load(tmp_path)


def test_a_pickled_adapter_is_refused_beside_its_config(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny("llama").save_pretrained(base)
    adapter = tmp_path / "adapter"
    add_adapters(load(base), base=base, rank=2, alpha=4, seed=0).save_pretrained(adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    write_base(adapter, base, "0")
    with pytest.raises(NightsmithError, match=r"adapter_model\.bin, a pickle file"):
        load(adapter)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
            "type 't5' .T5ForConditionalGeneration.",
        ),
        (
            {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}},
            "code of its own, which is never run",
        ),
    ],
)
def test_a_model_of_another_kind_is_named(tmp_path: Path, fields: dict, told: str) -> None:
    tiny("llama").save_pretrained(tmp_path)
    edit_config(tmp_path, **fields)
    with pytest.raises(NightsmithError, match=told):
        load(tmp_path)


def test_sharded_weights_with_a_lost_file_or_a_broken_index_are_refused(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(Damaged, match=f"absent, first {lost.name}"):
        load(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(Damaged, match="no index of weight files"):
        load(tmp_path)
