import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

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
