"""`nightsmith model serve`: a planner by vLLM on this machine's GPUs, from what fits to the address, until Ctrl-C."""

import ipaddress
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from nightsmith.agent import foreground
from nightsmith.agent.foreground import Said
from nightsmith.agent.model_plan import device
from nightsmith.agent.settings import load_settings
from nightsmith.model import accelerators, vllm
from nightsmith.model.accelerators import Accelerator
from nightsmith.model.capacity.subject import Subject, subject
from nightsmith.model.capacity.units import size
from nightsmith.model.catalogue import ModelNotFound, resolve
from nightsmith.model.pull import cache_dir
from nightsmith.model.vllm import CannotServe, Family, Fit
from nightsmith.record import leases
from nightsmith.record.offline import child_environment

START_S = 3600.0
"""Seconds that loading may take: hundreds of gigabytes from a slow disk."""
STOP_S = 60.0
POLL_S = 0.2
_HANDED_DOWN = ("VLLM_", "TIKTOKEN_", "HF_HOME", "HF_HUB_CACHE", "TRITON_")
"""Variables of vLLM's own that its process gets besides those of every child."""


@dataclass(frozen=True)
class Order:
    """What was asked for on the command line."""

    name: str
    gpus: int | None
    gpu: str
    """Of another machine: only printed."""
    host: str
    port: int
    max_len: int | None


@dataclass(frozen=True)
class Launch:
    """What will be run."""

    model: Subject
    fit: Fit
    argv: tuple[str, ...]
    env: dict[str, str]
    """Beside the environment of every child: which GPUs."""
    weights: Path | None
    """Where they lie; null: not on this machine."""
    url: str
    served: str
    """Name of the model on the server."""


def serve(order: Order, *, print_only: bool, as_json: bool) -> int:
    """Print the command, or run it until Ctrl-C. Raises CannotServe, ModelNotFound, or NightsmithError."""
    launch = plan(order)
    if print_only:
        _print(launch, as_json=as_json)
        return 0
    _require(launch, order)
    with foreground.stoppable(), foreground.progress() as said:
        print(_sentence(launch), file=sys.stderr, flush=True)
        _run(launch, said, as_json=as_json)
    with suppress(OSError):  # the terminal may be gone
        print("Stopped.", file=sys.stderr)
    return 0


def plan(order: Order) -> Launch:
    """Which weights on which GPUs, and the command line."""
    model = subject(order.name, cwd=Path.cwd())
    family = vllm.family_of(model)
    gpus = _gpus(order)
    fit = vllm.fitting(model, family, gpus, order.max_len)
    if fit is None:
        raise CannotServe(_refusal(model, family, gpus, order))
    weights = _weights(fit.release.source)
    served = Path(model.name).name
    where: dict[str, Any] = {"name": served, "host": order.host, "port": order.port}
    argv = vllm.arguments(fit, family, source=str(weights or fit.release.source), **where)
    shown = f"[{order.host}]" if ":" in order.host else order.host
    env = {"CUDA_VISIBLE_DEVICES": ",".join(gpu.index for gpu in fit.gpus)}
    return Launch(model, fit, argv, env, weights, f"http://{shown}:{order.port}/v1", served)


def _gpus(order: Order) -> tuple[Accelerator, ...]:
    """GPUs to serve on: of the table where some are named, else this machine's, the reserved ones where there are."""
    if order.gpu:
        return accelerators.of_table(device(order.gpu), order.gpus or 1)
    reserved = {name.removeprefix("cuda:") for name in leases.reserved() if name.startswith("cuda:")}
    here = [gpu for gpu in accelerators.found() if not reserved or gpu.index in reserved]
    return tuple(here[: order.gpus])


def _weights(source: str) -> Path | None:
    try:
        return resolve(source, cwd=Path.cwd())
    except ModelNotFound:
        return None


def _refusal(model: Subject, family: Family, gpus: Sequence[Accelerator], order: Order) -> str:
    """What there is, what is needed, and what would do."""
    asked = f" with {order.max_len:,} tokens of context" if order.max_len else ""
    forms = ", ".join(
        f"{release.precision} {size(vllm.weights_bytes(model.shape, release))}" for release in family.releases
    )
    would = " or ".join(
        f"{len(fit.gpus)} {fit.gpus[0].name} ({fit.release.precision}, {fit.max_len:,} tokens)"
        for fit in vllm.what_would_fit(model, family, order.max_len)
    )
    here = _shown(gpus) if gpus else "no GPU that nvidia-smi lists" if not order.gpu else "none"
    mend = f"What would: {would}." if would else "No kind of GPU that is known holds it in one machine of eight."
    return (
        f"{model.title} cannot be served{asked} here. Weights: {forms}, besides cache and {size(vllm.WORKING_BYTES)} "
        f"to work in; GPUs: {here}. {mend} The command for another machine: nightsmith model serve "
        f"{shlex.quote(order.name)} --print --gpus N --gpu H100."
    )


def _shown(gpus: Sequence[Accelerator]) -> str:
    kinds = dict.fromkeys((gpu.name, size(gpu.memory_bytes)) for gpu in gpus)
    return ", ".join(
        f"{sum((gpu.name, size(gpu.memory_bytes)) == kind for gpu in gpus)} {kind[0]} with {kind[1]}" for kind in kinds
    )


def _sentence(launch: Launch) -> str:
    fit = launch.fit
    return (
        f"{launch.model.title}, {fit.release.precision}, on {_shown(fit.gpus)}: {size(fit.weights_bytes)} of weights "
        f"each, {fit.max_len:,} tokens of context ({size(fit.cache_bytes)} of cache, {size(fit.room_bytes)} of room). "
        "Arithmetic; never measured."
    )


def _print(launch: Launch, *, as_json: bool) -> None:
    """The command alone on standard output; what there is to say of it, on standard error."""
    fit = launch.fit
    if as_json:
        told: dict[str, Any] = {
            "argv": launch.argv, "env": launch.env, "url": launch.url, "model": launch.served,
            "precision": fit.release.precision, "tensor_parallel": len(fit.gpus), "max_model_len": fit.max_len,
            "weights_bytes_per_gpu": fit.weights_bytes, "cache_bytes_per_gpu": fit.cache_bytes,
            "cache_room_bytes_per_gpu": fit.room_bytes, "weights": str(launch.weights) if launch.weights else None,
        }  # fmt: skip
        print(json.dumps(told, indent=1))
        return
    print(" ".join([*(f"{name}={value}" for name, value in launch.env.items()), shlex.join(launch.argv)]))
    print(_sentence(launch), file=sys.stderr)
    if launch.weights is None:
        print(f"The weights are not on this machine: hf download {fit.release.source}", file=sys.stderr)


def _require(launch: Launch, order: Order) -> None:
    """Raise CannotServe for what a start lacks."""
    if order.gpu:
        raise CannotServe(
            "--gpu names another machine's GPUs: add --print, or leave it out to serve on this machine's."
        )
    if shutil.which("vllm") is None:
        raise CannotServe(
            "vllm is not on PATH. Install it into an environment of its own on a machine with a GPU (pip install vllm) "
            "and put its bin folder on PATH; --print shows the command to run elsewhere."
        )
    if not _is_local(order.host) and not _token():
        raise CannotServe(
            f"--host {order.host} opens the planner to other machines: put a token into the environment variable "
            f"{load_settings().planner.token_env}, or serve on 127.0.0.1."
        )
    busy = [gpu for gpu in launch.fit.gpus if gpu.free_bytes < gpu.memory_bytes * vllm.UTILISATION]
    if busy:
        used = ", ".join(f"cuda:{gpu.index} {size(gpu.free_bytes)} of {size(gpu.memory_bytes)}" for gpu in busy)
        raise CannotServe(
            f"Not enough memory is free ({used}; {vllm.UTILISATION:.0%} must be). End what uses it, or name other GPUs "
            "in reserved_devices or $CUDA_VISIBLE_DEVICES."
        )
    if launch.weights is None:
        raise CannotServe(
            f"The weights {launch.fit.release.source} are not in the Hugging Face cache; serving downloads nothing. "
            f"Fetch them once: hf download {launch.fit.release.source}; or give a folder in place of {order.name!r}."
        )
    if not foreground.is_free(order.host, order.port):
        raise CannotServe(f"Port {order.port} of {order.host} is in use, or cannot be. Choose another one with --port.")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token() -> str | None:
    return os.environ.get(load_settings().planner.token_env)


def _run(launch: Launch, said: Said, *, as_json: bool) -> None:
    """The server from its start to its end."""
    folder = cache_dir() / "servers"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"vllm-{launch.url.rsplit(':', 1)[1].removesuffix('/v1')}.log"
    with path.open("w+b") as log:
        process = foreground.start(launch.argv, _environment(launch), Path.home(), log)
        try:
            _wait(process, launch, log, path, said)
            said("")
            _announce(launch, process, path, as_json=as_json)
            code = process.wait()
            raise CannotServe(
                f"vLLM ended by itself with status {code}. Its last words, from {path}: {foreground.tail(log)}"
            )
        finally:
            said("Stopping vLLM")
            foreground.stop(process, STOP_S)


def _environment(launch: Launch) -> dict[str, str]:
    """Offline, without this package on its path, which is in an environment of its own; its token by variable."""
    own = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_DOWN)}
    token = _token()
    env = child_environment({**own, **launch.env, **({"VLLM_API_KEY": token} if token else {})})
    del env["PYTHONPATH"]
    return env


def _wait(process: subprocess.Popen[bytes], launch: Launch, log: IO[bytes], path: Path, said: Said) -> None:
    """Until it answers that it is healthy. Raises CannotServe where it ends first, or takes an hour."""
    begun, told = time.monotonic(), 0.0
    while (waited := time.monotonic() - begun) < START_S:
        if process.poll() is not None:
            raise CannotServe(
                f"vLLM ended with status {process.returncode} before it served. Its last words, from {path}: "
                f"{foreground.tail(log)}"
            )
        if foreground.listens(process, int(launch.argv[launch.argv.index("--port") + 1])) and _is_healthy(launch.url):
            return
        line = _last_line(path)
        said(f"vLLM loads, {waited:.0f} s: {line}"[: shutil.get_terminal_size().columns - 2])
        if not sys.stderr.isatty() and waited - told >= 30:
            told = waited
            print(f"vLLM loads, {waited:.0f} s: {line}", file=sys.stderr, flush=True)
        time.sleep(POLL_S)
    raise CannotServe(f"vLLM was not healthy after {START_S / 60:.0f} minutes. See {path}.")


def _is_healthy(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url.removesuffix('/v1')}/health", timeout=5, trust_env=False).status_code == 200
    return False


def _last_line(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 4096))
        lines = log.read().decode(errors="replace").replace("\r", "\n").splitlines()
    return next(("".join(filter(str.isprintable, line)).strip() for line in reversed(lines) if line.strip()), "")


def _announce(launch: Launch, process: subprocess.Popen[bytes], path: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"url": launch.url, "model": launch.served, "pid": process.pid, "log": str(path)}), flush=True)
        return
    print("\n".join(_words(launch, path)), flush=True)


def _words(launch: Launch, path: Path) -> Iterator[str]:
    yield f"{launch.served} answers at {launch.url} (log: {path}). In nightsmith.toml:\n"
    reserved = {name for name in leases.reserved() if name.startswith("cuda:")}
    mine = [f"cuda:{gpu.index}" for gpu in launch.fit.gpus]
    if not set(mine) <= reserved:
        yield f"  reserved_devices = {json.dumps(mine)}  # jobs leave these to the planner"
    yield "  [planner]"
    yield f'  url = "{launch.url}"'
    yield f'  model = "{launch.served}"\n'
    yield f"Or for one command: NIGHTSMITH_PLANNER_URL={launch.url}. Ctrl-C stops it."
