"""The only loader of models: Hugging Face causal language models, our checkpoints, reward models, adapters on any."""

import copy
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from accelerate import init_empty_weights
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.mistral4.configuration_mistral4 import Mistral4Config

from nightsmith.model.bytes_tokenizer import bytes_tokenizer
from nightsmith.model.files import ADAPTER_CONFIG, WEIGHTS, NoTokenizer, has_tokenizer, weight_files
from nightsmith.model.presets import BYTE_VOCABULARY
from nightsmith.model.small4 import Small4Config, Small4ForCausalLM
from nightsmith.model.small4_tokenizer import VOCABULARY, small4_tokenizer
from nightsmith.record.errors import Damaged, NightsmithError

_BROUGHT_ALONG = {BYTE_VOCABULARY: bytes_tokenizer, VOCABULARY: small4_tokenizer}
"""Tokenizers of Small 4 style models by vocabulary size."""
_TEXT_PART = {r"^language_model\.": "", r"^model\.language_model\.": "model."}
"""Names in an image and text model, as released and as transformers holds them, to those of its text part."""
NAMED = 3
"""Tensors that an error names, of each kind."""


def load(checkpoint: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a folder, in evaluation mode, on the CPU; adapters are added into their base's weights.

    Plain Mistral4, also inside the released image and text model, becomes Small4ForCausalLM: the text part alone.

    Raises:
        NightsmithError: no model there, none that predicts text from left to right, or its weights are pickled.
        Damaged: its weights cannot be read or do not fit its config, or an adapter's base is another one by now.
    """
    if (checkpoint / ADAPTER_CONFIG).is_file():
        weight_files(checkpoint)  # refuses a pickled adapter, which PEFT would read
        from nightsmith.model.lora import attach, base_of  # peft takes seconds to import

        base = load(base_of(checkpoint), dtype=dtype)
        return attach(base, checkpoint, trainable=False).merge_and_unload().eval()
    config = read_config(checkpoint)
    if is_reward_model(config):
        raise NightsmithError(
            f"{checkpoint} is a reward model: it scores texts and writes none. Use the model that it was made of, or "
            "`load_reward_model`."
        )
    _require_readable(weight_files(checkpoint))
    if config["model_type"] == Small4Config.model_type and (checkpoint / WEIGHTS).is_file():
        model: Any = Small4ForCausalLM(cast(Small4Config, Small4Config.from_dict(config)))
        load_weights(model, checkpoint)
        return model.to(dtype).eval()
    return _load_other(checkpoint, config, dtype).eval()


def load_reward_model(checkpoint: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A model that gives a text one score, at its last token: a trained reward model, or the beginning of one.

    Args:
        checkpoint: a reward model or an adapter of one, else a causal language model (or an adapter on it), whose
            layers get a new head.
        seed: seeds torch's generator for a new head.
        dtype: of its weights.

    Raises:
        NightsmithError: as `load`; or transformers has no such head for the model's family.
    """
    model = _scoring(checkpoint, seed, dtype)
    # The score is read at the last token that is no padding, so padding must be the tokenizer's.
    model.config.get_text_config().pad_token_id = load_tokenizer(checkpoint).pad_token_id
    return model.eval()


def _scoring(checkpoint: Path, seed: int, dtype: torch.dtype) -> Any:
    if (checkpoint / ADAPTER_CONFIG).is_file():
        if _task(checkpoint) != "SEQ_CLS":
            return _with_score(load(checkpoint, dtype=dtype), checkpoint, seed)
        weight_files(checkpoint)
        from nightsmith.model.lora import attach, base_of

        base = _scoring(base_of(checkpoint), seed, dtype)
        return attach(base, checkpoint, trainable=False).merge_and_unload()
    if is_reward_model(config := read_config(checkpoint)):
        _require_readable(weight_files(checkpoint))
        return _load_other(checkpoint, config, dtype, AutoModelForSequenceClassification)
    return _with_score(load(checkpoint, dtype=dtype), checkpoint, seed)


def is_reward_model(config: dict[str, Any]) -> bool:
    """Whether a model's config is one that gives scores."""
    return any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def _task(adapter: Path) -> str | None:
    """What an adapter's model is for, in PEFT's words."""
    try:
        return json.loads((adapter / ADAPTER_CONFIG).read_text()).get("task_type")
    except (ValueError, AttributeError):
        return None


def _with_score(model: Any, checkpoint: Path, seed: int) -> Any:
    """The layers of a causal language model under a new head with one output."""
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    try:
        with init_empty_weights(include_buffers=False):
            scorer: Any = AutoModelForSequenceClassification.from_config(config)
        head = scorer.score
    except (ValueError, AttributeError) as error:
        raise NightsmithError(
            f"transformers {transformers.__version__} has no reward model for the family {config.model_type!r} of "
            f"{checkpoint}. Start from another model."
        ) from error
    scorer.base_model.load_state_dict(model.base_model.state_dict(), assign=True)
    torch.manual_seed(seed)
    scorer.score = nn.Linear(head.in_features, 1, bias=False, dtype=model.dtype)
    nn.init.normal_(scorer.score.weight, std=config.get_text_config().initializer_range)
    return scorer


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Fill a model with a checkpoint's weights, every name exactly once. Raises Damaged."""
    try:
        given = load_file(checkpoint / WEIGHTS)
    except Exception as error:
        raise _damaged(checkpoint, error) from error
    wanted = model.state_dict()
    reshaped = {name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape}
    _require_fit(checkpoint, wanted.keys() - given.keys(), reshaped, given.keys() - wanted.keys())
    model.load_state_dict(given)


def load_tokenizer(checkpoint: Path) -> Any:
    """The tokenizer of a model folder, with a token to pad with.

    Small 4 style models need none of their own: by their vocabulary they are byte-level, or have the one that comes
    along.

    Raises:
        NightsmithError: there is none, or it cannot be read.
    """
    config = read_config(_whole_model(checkpoint))
    folder = checkpoint if has_tokenizer(checkpoint) else _whole_model(checkpoint)
    if has_tokenizer(folder):
        tokenizer = _read_tokenizer(folder)
    elif config["model_type"] == Small4Config.model_type and config.get("vocab_size") in _BROUGHT_ALONG:
        tokenizer = _BROUGHT_ALONG[config["vocab_size"]]()
    else:
        raise NoTokenizer(checkpoint)
    _mend_special_tokens(tokenizer, config)
    return tokenizer


def read_config(checkpoint: Path) -> dict[str, Any]:
    """A model's config.json. Raises NightsmithError without one, Damaged where it is not a model's config."""
    path = checkpoint / "config.json"
    if not path.is_file():
        raise NightsmithError(f"{checkpoint} is not a checkpoint: it has no config.json. Give the folder of one.")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise Damaged(f"{path} is not JSON: {error}. Use another checkpoint or train again.") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise Damaged(f"{path} names no model_type. Use another checkpoint or train again.")
    return config


def _load_other(checkpoint: Path, config: dict[str, Any], dtype: torch.dtype, kind: Any = None) -> Any:
    """Through transformers; `kind`: an Auto class, where it is not the config that says which."""
    transformers.logging.disable_progress_bar()
    model_class, options = _class_of(checkpoint, config) if kind is None else (kind, {})
    try:
        model, report = model_class.from_pretrained(
            checkpoint, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True, ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
    except Exception as error:
        quantised = config.get("quantization_config", {}).get("quant_method")
        form = f"its weights are quantised ({quantised}); use an unquantised copy. " if quantised else ""
        raise _damaged(checkpoint, f"{form}{error}") from error
    missing, unknown = report["missing_keys"], report["unexpected_keys"]
    if not missing:  # a head for another task or an image tower may be left over, but no layer
        unknown = [name for name in unknown if _layer(name) >= model.config.num_hidden_layers]
    _require_fit(checkpoint, missing, [name for name, *_ in report["mismatched_keys"]], unknown)
    if getattr(text := model.config.get_text_config(), "output_router_logits", False):
        text.output_router_logits = False  # with it a mixture of experts fails on padded batches that are generated
    return model


def _layer(name: str) -> int:
    """Number of the language model's layer that a tensor belongs to; -1 for none."""
    found = re.search(r"^(?!.*vision).*\.(?:layers|h)\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _class_of(checkpoint: Path, config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What loads a model of this config, and with which further options. Raises NightsmithError.

    Plain Mistral4, e.g. the released Small 4, becomes ours: transformers' own scales attention otherwise.
    """
    kind = config["model_type"]
    text = config if kind == Mistral4Config.model_type else config.get("text_config") or {}
    if text.get("model_type") == Mistral4Config.model_type:
        return Small4ForCausalLM, {"config": Small4Config.from_mistral4(text), "key_mapping": _TEXT_PART}
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind != Small4Config.model_type:
        needs = " It brings code of its own, which is never run." if config.get("auto_map") else ""
        names = ", ".join(config.get("architectures") or ["no architecture named"])
        raise NightsmithError(
            f"{checkpoint} holds a model of type {kind!r} ({names}), and transformers {transformers.__version__} has "
            f"no causal language model of that type.{needs} Use a model that predicts text from left to right."
        )
    return AutoModelForCausalLM, {}


def _require_readable(files: Sequence[Path]) -> None:
    """Read each file's header, which also says how long the file must be. Raises Damaged, naming the file."""
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except Exception as error:
            raise Damaged(
                f"{file} is no whole safetensors file: {error}. Copy the model again, or train again."
            ) from error


def _require_fit(checkpoint: Path, missing: Iterable[str], reshaped: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raises Damaged where a config's tensors are absent or of another shape, or more layers are there than it has."""
    absent, other, more = sorted(missing), sorted(reshaped), sorted(unexpected)
    found = [
        f"{len(names)} {what} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
        for names, what in (
            (absent, "tensors are missing"),
            (other, "are of another shape"),
            (more, "are unknown to the config"),
        )
        if names
    ]
    if found:
        hint = " It looks like the weights of another architecture." if absent and more else ""
        raise _damaged(checkpoint, "; ".join(found) + "." + hint)


def _damaged(checkpoint: Path, error: object) -> Damaged:
    return Damaged(
        f"The weights of checkpoint {checkpoint} cannot be loaded: {str(error).rstrip('.')}. Use another checkpoint or "
        "train again."
    )


def _whole_model(checkpoint: Path) -> Path:
    """The folder at the bottom of adapters on adapters."""
    if not (checkpoint / ADAPTER_CONFIG).is_file():
        return checkpoint
    from nightsmith.model.lora import base_of

    return _whole_model(base_of(checkpoint))


def _read_tokenizer(folder: Path) -> Any:
    try:
        if (folder / "tokenizer_config.json").is_file():
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, mistral_format=False
            )
        if not (folder / "tokenizer.json").is_file() and (folder / "tekken.json").is_file():
            return small4_tokenizer(folder / "tekken.json")
        # Without a config the class of the model's family would invent special tokens that the vocabulary lacks.
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    except Exception as error:
        raise NightsmithError(f"The tokenizer of {folder} cannot be read: {error}. Save it again.") from error


def _mend_special_tokens(tokenizer: Any, config: dict[str, Any]) -> None:
    """Take BOS and EOS that the tokenizer does not name from the model's config; pad with EOS where there is no PAD."""
    size = config.get("vocab_size") or len(tokenizer)
    for name in ("bos_token", "eos_token", "pad_token"):
        found, told = getattr(tokenizer, f"{name}_id"), config.get(f"{name}_id")
        told = told[0] if isinstance(told, list) and told else told
        if found is not None and found < size:
            continue
        known = isinstance(told, int) and 0 <= told < min(size, len(tokenizer))
        setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(told) if known else None)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
