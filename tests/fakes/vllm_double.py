"""A `vllm` and an `nvidia-smi` on PATH: what no GPU here can run. The double refuses what vLLM 0.33 would refuse.

It checks its arguments, its environment and the model's folder, loads for a moment, then serves the OpenAI protocol,
held to the schema that it is given. `VLLM_DOUBLE` makes it fail: `oom` while it loads, `slow` never loads, `dies`
later.
"""

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOOL_PARSERS = ("mistral", "openai", "hermes", "deepseek_v4", "llama4_pythonic")
REASONING_PARSERS = ("mistral", "qwen3", "deepseek_v4")
MIB = 81_559


def install(folder: Path, num_gpus: int = 2, *, free_mib: int = 80_900, name: str = "NVIDIA H100 80GB HBM3") -> None:
    """Put both programs into a folder that is to be on PATH."""
    folder.mkdir(exist_ok=True)
    rows = [f"{i}, GPU-{i:04}, {name}, {MIB}, {free_mib}, 9.0" for i in range(num_gpus)]
    listing = "\\n".join(rows)
    _script(folder / "nvidia-smi", f'#!/bin/sh\nprintf "{listing}\\n"\n')
    _script(folder / "vllm", f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name='__main__')\n")


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def arguments(argv: list[str]) -> argparse.Namespace:
    """Those of `vllm serve` that exist, with vLLM's own choices."""
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    serve = parser.add_subparsers(required=True).add_parser("serve", allow_abbrev=False)
    serve.add_argument("model")
    for name in ("--served-model-name", "--host", "--attention-backend", "--model-impl"):
        serve.add_argument(name)
    for name in ("--port", "--tensor-parallel-size", "--max-model-len", "--max-num-batched-tokens", "--max-num-seqs"):
        serve.add_argument(name, type=int, required=True)
    serve.add_argument("--gpu-memory-utilization", type=float, required=True)
    serve.add_argument("--tokenizer-mode", choices=("auto", "hf", "slow", "mistral", "deepseek_v4"), default="auto")
    serve.add_argument("--config-format", choices=("auto", "hf", "mistral"), default="auto")
    serve.add_argument("--load-format", choices=("auto", "safetensors", "mistral"), default="auto")
    serve.add_argument("--tool-call-parser", choices=TOOL_PARSERS)
    serve.add_argument("--reasoning-parser", choices=REASONING_PARSERS)
    serve.add_argument("--enable-auto-tool-choice", action="store_true")
    return parser.parse_args(argv)


def check(given: argparse.Namespace) -> None:
    """What vLLM, or the rules for child processes, would not let pass."""
    devices = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    problems = [
        (len(devices) != given.tensor_parallel_size, "tensor parallel size is not the number of visible devices"),
        (bool(given.tool_call_parser) != given.enable_auto_tool_choice, "auto tool choice needs a parser"),
        (given.max_num_batched_tokens < given.max_num_seqs, "fewer batched tokens than sequences"),
        (not (Path(given.model) / "config.json").is_file(), f"{given.model} holds no config.json"),
        (os.environ.get("HF_HUB_OFFLINE") != "1", "may call out"),
        ("PYTHONPATH" in os.environ, "has another environment's packages on its path"),
        (any(name.endswith(("_SECRET", "_PASSWORD")) for name in os.environ), "was handed a secret"),
    ]
    for is_wrong, words in problems:
        if is_wrong:
            sys.exit(f"ValueError: {words}")


def load(how: str) -> None:
    """Progress as vLLM writes it, then whatever is to go wrong."""
    for done in (0, 50, 100):
        print(f"Loading safetensors checkpoint shards: {done}% Completed", file=sys.stderr, flush=True)
        time.sleep(0.05)
    if how == "oom":
        sys.exit("ValueError: To serve at least one request with max seq len 262144, 5.62 GiB KV cache is needed")
    if how == "slow":
        time.sleep(600)


def instance(schema: dict[str, Any]) -> Any:
    """Some value of a schema: the first choice each time."""
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if "anyOf" in schema:
        return instance(schema["anyOf"][0])
    if schema.get("type") == "object":
        return {name: instance(schema["properties"][name]) for name in schema.get("required", ())}
    if schema.get("type") == "array":
        return [instance(schema["items"])] * schema.get("minItems", 0)
    return {"string": "", "integer": 0, "number": 0, "boolean": False}.get(schema.get("type", ""))


def handler(given: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    """The protocol."""
    token = os.environ.get("VLLM_API_KEY")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self._send(200, {})
            else:
                self._send(200, {"object": "list", "data": [{"id": given.served_model_name, "object": "model"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                return self._send(401, {"error": "Unauthorized"})
            if asked["model"] != given.served_model_name:
                return self._send(404, {"error": f"The model {asked['model']} does not exist."})
            text = json.dumps(instance(asked["response_format"]["json_schema"]["schema"]))
            message = {"role": "assistant", "content": text, "reasoning": None, "tool_calls": []}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "stop_reason": None}
            usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
            return self._send(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def main() -> None:
    """Serve until SIGTERM."""
    given = arguments(sys.argv[1:])
    check(given)
    how = os.environ.get("VLLM_DOUBLE", "")
    load(how)
    server = ThreadingHTTPServer((given.host, given.port), handler(given))
    if how == "dies":
        threading.Timer(1.0, lambda: os._exit(9)).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
