"""`nightsmith model serve`: the command line for the hardware, the server from its start to its end, and refusals."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import vllm_double
from safetensors.numpy import save_file

from nightsmith.agent.backends import ChatBackend
from nightsmith.agent.model_serve import Order, serve
from nightsmith.model import vllm
from nightsmith.model.accelerators import of_table
from nightsmith.model.capacity.devices import GPUS
from nightsmith.model.capacity.subject import subject
from nightsmith.model.pull import PlannerUnavailable
from nightsmith.model.vllm import FAMILIES, CannotServe

REPOSITORY = "models--mistralai--Mistral-Small-4-119B-2603"
SCHEMA = {"type": "object", "properties": {"s": {"enum": ["ready"]}}, "required": ["s"], "additionalProperties": False}


def fit(name: str, gpu: str, count: int, max_len: int | None = None):
    return vllm.fitting(subject(name, cwd=Path.cwd()), FAMILIES[name], of_table(GPUS[gpu], count), max_len)


@pytest.mark.parametrize(
    ("name", "gpu", "count", "precision", "tensor_parallel", "max_len"),
    [
        ("small4", "H100", 4, "FP8", 2, 262_144),
        ("small4", "H100", 1, "NVFP4", 1, 65_536),
        ("small4", "B200", 8, "FP8", 1, 262_144),
        ("gpt-oss-120b", "H100", 8, "MXFP4", 1, 131_072),
        ("qwen3-30b-a3b", "H100", 1, "bfloat16", 1, 40_960),
        ("llama4-scout", "H100", 2, "FP8", 2, 262_144),
        ("deepseek-v4-pro", "H200", 8, "FP4 and FP8", 8, 262_144),
    ],
)
def test_the_preferred_weights_take_as_few_gpus_as_hold_the_whole_context(
    name, gpu, count, precision, tensor_parallel, max_len
):
    found = fit(name, gpu, count)
    assert (found.release.precision, len(found.gpus), found.max_len) == (precision, tensor_parallel, max_len)
    usable = GPUS[gpu].memory_bytes * vllm.UTILISATION
    assert found.weights_bytes + found.cache_bytes + vllm.WORKING_BYTES < usable


def test_weights_are_as_large_as_their_publishers_say():
    """GB of files: Small 4 NVFP4 66 to 72, GPT-OSS 120B 65, DeepSeek V4 Pro 865."""

    def gigabytes(name: str, place: int) -> float:
        return vllm.weights_bytes(subject(name, cwd=Path.cwd()).shape, FAMILIES[name].releases[place]) / 1e9

    assert 66 < gigabytes("small4", 1) < 72
    assert gigabytes("gpt-oss-120b", 0) == pytest.approx(65, rel=0.03)
    assert gigabytes("deepseek-v4-pro", 0) == pytest.approx(865, rel=0.03)


def test_four_bit_weights_of_llama_need_blackwell_and_a_context_that_was_asked_for_is_kept():
    assert fit("llama4-scout", "H100", 1) is None
    assert fit("small4", "H100", 2, 131_072).max_len == 131_072
    assert fit("small4", "H100", 1, 262_144) is None


@contextmanager
def machine(tmp_path: Path, monkeypatch, **gpus):
    """A machine with vLLM, two GPUs and Small 4's weights: what commands on it get as environment."""
    vllm_double.install(tmp_path / "bin", **gpus)
    snapshot = tmp_path / "hub" / REPOSITORY / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "hub" / REPOSITORY / "refs").mkdir()
    (tmp_path / "hub" / REPOSITORY / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name, value in (("HF_HUB_CACHE", "hub"), ("NIGHTSMITH_CACHE", "cache")):
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("SOME_SECRET", "x")
    for name in ("CUDA_VISIBLE_DEVICES", "NIGHTSMITH_PLANNER_TOKEN", "NIGHTSMITH_PLANNER_URL", "VLLM_DOUBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield snapshot


@pytest.fixture
def here(tmp_path, monkeypatch):
    with machine(tmp_path, monkeypatch) as snapshot:
        yield snapshot


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*arguments: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "nightsmith.agent.cli", "model", "serve", *arguments]
    return subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    process = start(*arguments)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_print_prints_the_command_alone_and_starts_nothing(here):
    done = run("small4", "--print")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"CUDA_VISIBLE_DEVICES=0,1 vllm serve {here} --served-model-name small4 ")
    for words in (
        "--tensor-parallel-size 2", "--max-model-len 262144", "--tokenizer-mode mistral", "--tool-call-parser mistral",
        "--enable-auto-tool-choice", "--reasoning-parser mistral", "--attention-backend FLASH_ATTN_MLA",
    ):  # fmt: skip
        assert words in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.usefixtures("here")
def test_it_serves_a_planner_until_ctrl_c_and_leaves_nothing_behind(tmp_path):
    port = free_port()
    process = start("small4", "--port", str(port), "--json")
    told = json.loads(process.stdout.readline() or process.stderr.read())
    assert (told["url"], told["model"]) == (f"http://127.0.0.1:{port}/v1", "small4")
    answer = asyncio.run(
        ChatBackend(url=told["url"]).complete([{"role": "user", "content": "?"}], SCHEMA, max_tokens=9)
    )
    assert json.loads(answer.text) == {"s": "ready"}
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Stopped." in err
    assert "FP8, on 2 NVIDIA H100 80GB HBM3" in err
    with pytest.raises(ProcessLookupError):
        os.kill(told["pid"], 0)
    assert "shards: 100%" in Path(told["log"]).read_text()
    assert tmp_path in Path(told["log"]).parents


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_what_to_put_into_the_settings_is_said(tmp_path):
    (tmp_path / "nightsmith.toml").write_text('reserved_devices = ["cuda:1", "cuda:0"]\n')
    port = free_port()
    process = start("small4", "--port", str(port))
    lines = [process.stdout.readline() for _ in range(6)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    said = "".join(lines)
    assert f'url = "http://127.0.0.1:{port}/v1"' in said
    assert 'model = "small4"' in said
    assert "reserved_devices" not in said.split("\n", 1)[1]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_token_of_the_settings_locks_the_server_by_its_environment(monkeypatch):
    monkeypatch.setenv("NIGHTSMITH_PLANNER_TOKEN", "t0ken")
    port = free_port()
    process = start("small4", "--port", str(port), "--json")
    told = json.loads(process.stdout.readline())
    try:
        assert "t0ken" not in " ".join(Path(f"/proc/{told['pid']}/cmdline").read_text().split("\0"))
        question: tuple = ([{"role": "user", "content": "?"}], SCHEMA)
        backend = ChatBackend(url=told["url"], token="t0ken")
        assert asyncio.run(backend.complete(*question, max_tokens=9)).text == '{"s": "ready"}'
        with pytest.raises(PlannerUnavailable, match="NIGHTSMITH_PLANNER_TOKEN"):
            asyncio.run(ChatBackend(url=told["url"]).complete(*question, max_tokens=9))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("how", "words"), [("oom", "before it served.*max seq len 262144"), ("dies", "ended by itself with status 9")]
)
def test_a_server_that_fails_is_told_by_its_last_words(monkeypatch, how, words):
    monkeypatch.setenv("VLLM_DOUBLE", how)
    done = run("small4", "--port", str(free_port()))
    assert done.returncode == 5
    assert re.search(words, done.stderr)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_ctrl_c_while_it_loads_ends_it(monkeypatch):
    monkeypatch.setenv("VLLM_DOUBLE", "slow")
    process = start("small4", "--port", str(free_port()))
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def refused(name: str, **changes) -> str:
    """Why it is not started."""
    order = Order(
        **{"name": name, "gpus": None, "gpu": "", "host": "127.0.0.1", "port": free_port(), "max_len": None, **changes}
    )
    with pytest.raises(CannotServe) as caught:
        serve(order, print_only=False, as_json=False)
    assert caught.value.exit_code == 5
    return str(caught.value)


def printed(capsys, name: str, **changes) -> dict:
    order = Order(
        **{"name": name, "gpus": None, "gpu": "", "host": "127.0.0.1", "port": 8000, "max_len": None, **changes}
    )
    assert serve(order, print_only=True, as_json=True) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("here")
def test_what_is_missing_is_said_with_how_to_get_it(tmp_path):
    assert "hf download openai/gpt-oss-20b" in refused("gpt-oss-20b")
    assert "What would: 8 H200" in refused("deepseek-v4-pro")
    assert "NIGHTSMITH_PLANNER_TOKEN" in refused("small4", host="0.0.0.0")
    assert "add --print" in refused("small4", gpu="H200")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "mine").mkdir()
        write_folder(tmp_path / "mine")
        assert "--port" in refused("mine", port=taken.getsockname()[1])
    (tmp_path / "bin" / "vllm").unlink()
    assert "vllm is not on PATH" in refused("small4")
    (tmp_path / "bin" / "nvidia-smi").unlink()
    assert "no GPU that nvidia-smi lists. What would: 1 H100 (NVFP4, 65,536 tokens) or 1 H200" in refused("small4")


def test_gpus_that_others_use_are_named(tmp_path, monkeypatch):
    with machine(tmp_path, monkeypatch, free_mib=20_000):
        assert "cuda:0 19.5 GiB of 79.6 GiB" in refused("small4")


@pytest.mark.usefixtures("here")
def test_gpus_are_those_that_are_reserved_and_visible(tmp_path, monkeypatch, capsys):
    (tmp_path / "nightsmith.toml").write_text('reserved_devices = ["cuda:1"]\n')
    told = printed(capsys, "small4")
    assert (told["env"], told["precision"]) == ({"CUDA_VISIBLE_DEVICES": "1"}, "NVFP4")
    (tmp_path / "nightsmith.toml").unlink()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0001")
    assert printed(capsys, "small4")["env"] == {"CUDA_VISIBLE_DEVICES": "1"}


def write_folder(folder: Path, **config) -> Path:
    """A model's folder with a config of a Llama and some weights."""
    folder.mkdir(exist_ok=True)
    known = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
        "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 8192, "dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(known | config))
    save_file({"model.embed_tokens.weight": np.zeros((100, 64), np.float32)}, folder / "model.safetensors")
    return folder


@pytest.mark.usefixtures("here")
def test_a_folder_is_served_as_it_is_with_the_length_that_its_config_names(tmp_path, capsys):
    told = printed(capsys, str(write_folder(tmp_path / "mine")))
    assert told["argv"][2:5] == [str(tmp_path / "mine"), "--served-model-name", "mine"]
    assert (told["max_model_len"], told["tensor_parallel"]) == (8192, 1)
    (tmp_path / "mine" / "tekken.json").write_text("{}")
    assert "--tokenizer-mode" in printed(capsys, "mine")["argv"]


def test_an_architecture_without_weights_and_an_adapter_are_refused_with_what_to_do(tmp_path):
    assert "without published weights" in refused("nano")
    folder = write_folder(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text("{}")
    assert "nightsmith export" in refused(str(folder))
