import json

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from safetensors.torch import load_file
from tiny_llama import write_tiny_llama

from nightsmith.model import export_worker
from nightsmith.model.export import ExportFailed, ExportRequest
from nightsmith.model.files import weights_digest
from nightsmith.model.gguf_adapter import export_adapter
from nightsmith.model.load import load
from nightsmith.model.lora import add_adapters, write_base
from nightsmith.model.lora_gguf import permute_rows, read_lora_gguf, write_lora_gguf
from nightsmith.record.errors import Damaged

HEADS, DIM, RANK = 4, 8, 2
ATTENTION = "base_model.model.model.layers.3.self_attn."


def rotate_halves(x, angles):
    """Rotary embedding as transformers lays it out: (i, i + dim/2) are pairs."""
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate(
        [low * np.cos(angles) - high * np.sin(angles), high * np.cos(angles) + low * np.sin(angles)], -1
    )


def rotate_pairs(x, angles):
    """Rotary embedding as llama.cpp lays it out for Llama: (2i, 2i + 1) are pairs."""
    even, odd = x[..., ::2], x[..., 1::2]
    rotated = np.stack([even * np.cos(angles) - odd * np.sin(angles), odd * np.cos(angles) + even * np.sin(angles)], -1)
    return rotated.reshape(x.shape)


def test_permuted_q_and_k_give_the_same_attention_scores_under_the_other_rotary_layout():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, HEADS * DIM, 5))
    x = rng.normal(size=5)
    angles = 7 * 10000.0 ** (-np.arange(DIM // 2) / (DIM // 2))

    def scores(rotate, q_weight, k_weight):
        q_rotated = rotate((q_weight @ x).reshape(HEADS, DIM), angles)
        return (q_rotated * (k_weight @ x).reshape(HEADS, DIM)).sum(-1)

    ours = scores(rotate_pairs, permute_rows(q, HEADS), permute_rows(k, HEADS))
    np.testing.assert_allclose(ours, scores(rotate_halves, q, k))


def test_the_file_holds_what_the_engine_looks_for(tmp_path):
    rng = np.random.default_rng(1)
    b_q, b_v = rng.normal(size=(HEADS * DIM, RANK)), rng.normal(size=(DIM, RANK))
    a = rng.normal(size=(RANK, 16))
    adapters = {f"{ATTENTION}q_proj.lora_A.weight": a, f"{ATTENTION}q_proj.lora_B.weight": b_q}
    adapters |= {f"{ATTENTION}v_proj.lora_A.weight": a, f"{ATTENTION}v_proj.lora_B.weight": b_v}
    path = tmp_path / "adapter.gguf"
    write_lora_gguf(path, adapters, alpha=32, num_heads=HEADS, num_key_value_heads=1)

    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 32.0,
    }
    tensors = {t.name: np.array(t.data) for t in reader.tensors}
    assert tensors.keys() == {f"blk.3.attn_{n}.weight.lora_{s}" for n in "qv" for s in "ab"}
    np.testing.assert_array_equal(tensors["blk.3.attn_q.weight.lora_a"], a.astype(np.float16))
    np.testing.assert_array_equal(tensors["blk.3.attn_v.weight.lora_b"], b_v.astype(np.float16))
    expected = permute_rows(b_q, HEADS).astype(np.float16)
    np.testing.assert_array_equal(tensors["blk.3.attn_q.weight.lora_b"], expected)
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_written_is_read_back_under_the_same_names(tmp_path):
    rng = np.random.default_rng(2)
    shapes = {"q_proj": HEADS * DIM, "k_proj": DIM, "o_proj": 16}
    adapters = {f"{ATTENTION}{n}.lora_B.weight": rng.normal(size=(rows, RANK)) for n, rows in shapes.items()}
    adapters |= {f"{ATTENTION}{n}.lora_A.weight": rng.normal(size=(RANK, 16)) for n in shapes}
    path = tmp_path / "adapter.gguf"
    write_lora_gguf(path, adapters, alpha=32, num_heads=HEADS, num_key_value_heads=1)
    again = read_lora_gguf(path, num_heads=HEADS, num_key_value_heads=1)
    assert again.keys() == adapters.keys()
    for name, array in adapters.items():
        np.testing.assert_array_equal(again[name], array.astype(np.float16).astype(np.float32))


def test_a_gguf_file_that_is_no_adapter_is_refused_by_its_tensor(tmp_path):
    writer = GGUFWriter(tmp_path / "base.gguf", arch="llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(Damaged, match="token_embd"):
        read_lora_gguf(tmp_path / "base.gguf", num_heads=1, num_key_value_heads=1)


def test_an_adapter_of_another_kind_of_layer_is_refused_by_name(tmp_path):
    name = "base_model.model.model.embed_tokens.lora_A.weight"
    with pytest.raises(Damaged, match="embed_tokens"):
        write_lora_gguf(tmp_path / "x", {name: np.zeros((2, 2))}, alpha=1, num_heads=1, num_key_value_heads=1)


def adapter_on_a_tiny_llama(folder):
    base = write_tiny_llama(folder / "base")
    model = add_adapters(load(base), base=base, rank=4, alpha=8, seed=0)
    model.save_pretrained(folder / "adapter")
    write_base(folder / "adapter", base, weights_digest(base))
    return folder / "adapter"


def test_an_adapter_that_peft_wrote_is_exported_for_the_engine_with_its_scale(tmp_path):
    adapter, out = adapter_on_a_tiny_llama(tmp_path), tmp_path / "out"
    out.mkdir()
    request = ExportRequest(checkpoint=str(adapter), folder=str(out), form="gguf-lora", name="tiny")
    exported = export_worker.export(request)
    state = load_file(adapter / "adapter_model.safetensors")
    again = read_lora_gguf(out / "adapter.gguf", num_heads=4, num_key_value_heads=2)
    assert again.keys() == state.keys()
    assert all(np.allclose(again[name], weight.numpy(), atol=1e-3) for name, weight in state.items())
    assert GGUFReader(out / "adapter.gguf").fields["adapter.lora.alpha"].contents() == 8
    assert (exported.num_parameters, exported.precision) == (sum(w.numel() for w in state.values()), "float16")


def test_a_model_that_is_no_plain_adapter_of_a_llama_is_refused_with_what_would_do(tmp_path):
    adapter = adapter_on_a_tiny_llama(tmp_path)
    with pytest.raises(ExportFailed, match=r"whole model and no adapter\. Export it with --format gguf"):
        export_adapter(tmp_path / "base", tmp_path)
    described = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(described | {"use_dora": True}))
    with pytest.raises(ExportFailed, match="use_dora"):
        export_adapter(adapter, tmp_path)
