"""How vLLM serves a model: published weights, options of its family, and what fits on given GPUs. Torch-free.

Options are those of vLLM's own recipes (github.com/vllm-project/recipes, read November 2026) and of its documentation;
sizes are arithmetic of `model.capacity`. Nothing here was ever run with vLLM.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nightsmith.model.accelerators import BLACKWELL, HOPPER, Accelerator, kinds, of_table
from nightsmith.model.capacity.devices import CONTEXT_BYTES
from nightsmith.model.capacity.planning import cache
from nightsmith.model.capacity.published import PUBLISHED
from nightsmith.model.capacity.shapes import MATRIX_PARTS, ModelShape
from nightsmith.model.capacity.subject import Subject
from nightsmith.model.capacity.units import GIB
from nightsmith.model.catalogue import BUILT_IN, resolve
from nightsmith.model.files import ADAPTER_CONFIG, weight_files
from nightsmith.model.headers import read_object
from nightsmith.record.errors import NightsmithError

UTILISATION = 0.9
"""Share of a GPU's memory that vLLM takes, and that must be free."""
WORKING_BYTES = 4 * GIB
"""Of it, activations of a batch and CUDA graphs; assumed."""
LONGEST, SHORTEST = 262_144, 16_384
"""Context that is served where it fits, and the least that a planner is served with, in tokens."""
BATCHED_TOKENS, SEQUENCES = 8192, 32
"""A planner has few requests at once: small batches leave more memory to the cache."""
COUNTS = (1, 2, 4, 8)
"""GPUs of one machine that a model is split over."""
OLDEST = (8, 0)
"""Compute capability that vLLM's kernels for bfloat16 and for quantised experts begin at."""


class CannotServe(NightsmithError):
    """A model that vLLM cannot serve here; says what would do."""

    exit_code = 5


@dataclass(frozen=True)
class Release:
    """One form of a model's weights."""

    source: str
    """`owner/name` on the hub, or a folder."""
    precision: str
    """For a reader."""
    experts: float = 2.0
    """Bytes of a value of routed experts."""
    matrices: float = 2.0
    """Bytes of a value of the layers' other matrices; embedding, head, routers, norms and vision are bfloat16."""
    options: tuple[str, ...] = ()
    """Options of this form."""
    on_hopper: tuple[str, ...] = ()
    """Options on Hopper alone."""
    since: tuple[int, int] = OLDEST
    """Compute capability that it needs."""
    num_bytes: int = 0
    """Of a folder: what its weights take; 0: counted."""


@dataclass(frozen=True)
class Family:
    """A model as vLLM serves it."""

    releases: tuple[Release, ...]
    """The preferred form first."""
    options: tuple[str, ...] = ()
    """Parsers and tokenizer."""
    longest: int = LONGEST
    """Tokens that its publisher serves it with, at most LONGEST."""
    heads: int = 0
    """Attention heads: tensor parallelism splits them evenly. 0: those of the catalogue's config."""


def _fp8(source: str, *options: str, hopper: tuple[str, ...] = ()) -> Release:
    return Release(source, "FP8", 1.0, 1.0, options, hopper)


def _nvfp4(source: str, *options: str, since: tuple[int, int] = OLDEST) -> Release:
    return Release(source, "NVFP4", 4.5 / 8, 4.5 / 8, options, since=since)


_MXFP4 = 4.25 / 8
_MISTRAL = (
    "--tokenizer-mode", "mistral", "--tool-call-parser", "mistral", "--enable-auto-tool-choice",
    "--reasoning-parser", "mistral",
)  # fmt: skip
"""Mistral's tokenizer mode, which alone holds answers to a grammar, and its parsers for calls and thoughts."""
_GPT_OSS = ("--tool-call-parser", "openai", "--enable-auto-tool-choice")
_QWEN3 = ("--tool-call-parser", "hermes", "--enable-auto-tool-choice", "--reasoning-parser", "qwen3")
_DEEPSEEK_V4 = (
    "--trust-remote-code", "--block-size", "256", "--kv-cache-dtype", "fp8", "--enable-expert-parallel",
    "--tokenizer-mode", "deepseek_v4", "--tool-call-parser", "deepseek_v4", "--enable-auto-tool-choice",
    "--reasoning-parser", "deepseek_v4",
)  # fmt: skip
_SCOUT = "Llama-4-Scout-17B-16E-Instruct"
_CACHE_FP8 = ("--kv-cache-dtype", "fp8")

FAMILIES: Mapping[str, Family] = {
    "small4": Family(
        (
            # FLASH_ATTN_MLA is of Hopper alone (vLLM's FlashAttnMLABackend); elsewhere vLLM chooses.
            _fp8("mistralai/Mistral-Small-4-119B-2603", "--config-format", "mistral", "--load-format", "mistral",
                 hopper=("--attention-backend", "FLASH_ATTN_MLA")),
            _nvfp4("mistralai/Mistral-Small-4-119B-2603-NVFP4", "--attention-backend", "TRITON_MLA"),
        ),
        _MISTRAL,
    ),
    "gpt-oss-20b": Family((Release("openai/gpt-oss-20b", "MXFP4", _MXFP4),), _GPT_OSS, 131_072),
    "gpt-oss-120b": Family((Release("openai/gpt-oss-120b", "MXFP4", _MXFP4),), _GPT_OSS, 131_072),
    "llama4-scout": Family(
        (
            Release(f"meta-llama/{_SCOUT}", "bfloat16"),
            _fp8(f"nvidia/{_SCOUT}-FP8", *_CACHE_FP8),
            _nvfp4(f"nvidia/{_SCOUT}-NVFP4", *_CACHE_FP8, since=BLACKWELL),
        ),
    ),
    "qwen3-30b-a3b": Family(
        (Release("Qwen/Qwen3-30B-A3B", "bfloat16"), _fp8("Qwen/Qwen3-30B-A3B-FP8")), _QWEN3, 40_960
    ),
    "deepseek-v4-flash": Family(
        (Release("deepseek-ai/DeepSeek-V4-Flash", "FP4 and FP8", _MXFP4, 1.0, since=HOPPER),), _DEEPSEEK_V4
    ),
    "deepseek-v4-pro": Family(
        (Release("deepseek-ai/DeepSeek-V4-Pro", "FP4 and FP8", _MXFP4, 1.0, since=HOPPER),), _DEEPSEEK_V4
    ),
}  # fmt: skip
"""Models of the catalogue whose weights are published."""
_BY_TYPE: Mapping[str, tuple[str, ...]] = {
    "small4": ("--model-impl", "transformers"), "gpt_oss": _GPT_OSS, "qwen3_moe": _QWEN3, "qwen3": _QWEN3,
    "deepseek_v4": _DEEPSEEK_V4,
}  # fmt: skip
"""Options of a folder, by its config's `model_type`."""


@dataclass(frozen=True)
class Fit:
    """A form of the weights on some of the GPUs."""

    release: Release
    """Which weights."""
    gpus: tuple[Accelerator, ...]
    """On which."""
    max_len: int
    """Tokens of prompt and answer together."""
    weights_bytes: int
    """On each GPU."""
    cache_bytes: int
    """Of one sequence of that length, on each GPU."""
    room_bytes: int
    """For the cache, on each GPU."""


def family_of(model: Subject) -> Family:
    """How vLLM serves a model of the catalogue or a folder. Raises CannotServe."""
    if model.name in FAMILIES:
        return FAMILIES[model.name]
    folder = resolve(BUILT_IN, cwd=Path()) if model.name == BUILT_IN else Path(model.name)
    if model.name in PUBLISHED:
        raise CannotServe(
            f"{model.title} is an architecture without published weights. Served by name: {', '.join(FAMILIES)}; else "
            "give a model's folder, such as `nightsmith export` writes."
        )
    if (folder / ADAPTER_CONFIG).is_file():
        raise CannotServe(
            f"{folder} holds an adapter. Write the whole model first: nightsmith export {folder} --to FOLDER."
        )
    config = read_object(folder / "config.json")
    kind = str(config.get("model_type", ""))
    has_tekken = (folder / "tekken.json").is_file()
    options = _MISTRAL if has_tekken else _BY_TYPE.get(kind, ())
    quantised = cast(dict[str, Any], config.get("quantization_config") or {})
    precision = str(quantised.get("quant_method") or config.get("dtype") or config.get("torch_dtype") or "as it is")
    num_bytes = sum(file.stat().st_size for file in weight_files(folder))
    release = Release(str(folder), precision, num_bytes=num_bytes)
    return Family((release,), options, min(LONGEST, model.shape.max_len or LONGEST), _heads(config))


def _heads(config: Mapping[str, Any]) -> int:
    """Attention heads of the text model; 1, which is not split, where the config names none."""
    return (config.get("text_config") or config).get("num_attention_heads", 1)


def fitting(model: Subject, family: Family, gpus: Sequence[Accelerator], max_len: int | None = None) -> Fit | None:
    """The form, the GPUs and the context to serve with; None where nothing fits.

    The first form that fits at all; of it the fewest GPUs that hold the whole context, so that others stay free for
    jobs; where none do, the longest context. `max_len` asks for one context.
    """
    for release in family.releases:
        usable = [gpu for gpu in gpus if gpu.capability >= release.since]
        fits = list(_fits(model, family, release, usable, max_len))
        whole = next((fit for fit in fits if fit.max_len >= (max_len or family.longest)), None)
        if whole or fits:
            return whole or max(fits, key=lambda fit: fit.max_len)
    return None


def _fits(
    model: Subject, family: Family, release: Release, gpus: Sequence[Accelerator], max_len: int | None
) -> Iterator[Fit]:
    heads = family.heads or _heads(PUBLISHED[model.name].config)
    for count in COUNTS:
        if count > len(gpus) or heads % count:
            continue
        chosen = tuple(sorted(gpus, key=lambda gpu: -gpu.memory_bytes)[:count])
        weights = weights_bytes(model.shape, release) // count
        memory = min(gpu.memory_bytes for gpu in chosen)
        room = int(memory * UTILISATION) - weights - WORKING_BYTES - CONTEXT_BYTES
        for length in _lengths(family, max_len):
            held = _cache_bytes(model.shape, family, release, length, count)
            if held <= room:
                yield Fit(release, chosen, length, weights, held, room)
                break


def _lengths(family: Family, max_len: int | None) -> tuple[int, ...]:
    """Contexts to try, the longest first: powers of two below the family's own."""
    if max_len is not None:
        return (max_len,)
    halves = (LONGEST >> power for power in range(5))
    return (family.longest, *(each for each in halves if SHORTEST <= each < family.longest))


def weights_bytes(shape: ModelShape, release: Release) -> int:
    """Bytes of all weights, vision tower included."""
    if release.num_bytes:
        return release.num_bytes
    widths = {part: release.experts if part == "experts" else release.matrices for part in MATRIX_PARTS}
    text = sum(weight.size * times * widths.get(weight.part, 2.0) for weight, times in shape.weights())
    return round(text + 2 * sum(extra.size for extra in shape.extras))


def _cache_bytes(shape: ModelShape, family: Family, release: Release, length: int, count: int) -> int:
    halved = 2 if "fp8" in _cache_dtype((*family.options, *release.options)) else 1
    return cache(shape, length).bytes_per_sequence // halved // min(count, shape.kv_shards)


def _cache_dtype(options: tuple[str, ...]) -> str:
    return options[options.index("--kv-cache-dtype") + 1] if "--kv-cache-dtype" in options else "auto"


def what_would_fit(model: Subject, family: Family, max_len: int | None = None) -> tuple[Fit, ...]:
    """Of each kind of GPU in the table the fewest that hold it."""
    found = (
        next((fit for count in COUNTS if (fit := fitting(model, family, of_table(device, count), max_len))), None)
        for device in kinds()
    )
    return tuple(fit for fit in found if fit)


def arguments(fit: Fit, family: Family, *, source: str, name: str, host: str, port: int) -> tuple[str, ...]:
    """The command line, `vllm` first. `source` is where the weights are, `name` what the server calls them."""
    release = fit.release
    hopper = release.on_hopper if all(gpu.capability[0] == HOPPER[0] for gpu in fit.gpus) else ()
    return (
        "vllm", "serve", source, "--served-model-name", name, "--host", host, "--port", str(port),
        "--tensor-parallel-size", str(len(fit.gpus)), "--max-model-len", str(fit.max_len),
        "--gpu-memory-utilization", str(UTILISATION), "--max-num-batched-tokens", str(BATCHED_TOKENS),
        "--max-num-seqs", str(SEQUENCES), *release.options, *hopper, *family.options,
    )  # fmt: skip
