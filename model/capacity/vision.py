"""Vision towers of multimodal models: counted with the published model, left out when its text part trains."""

from collections.abc import Mapping
from typing import Any, cast

from nightsmith.model.capacity.fields import Fields
from nightsmith.model.capacity.shapes import Weight


def extras(content: Mapping[str, Any], text_hidden: int, where: str) -> tuple[Weight, ...]:
    """Tower and projector of a multimodal config, each as one weight; empty for a tower that is not known."""
    vision = content.get("vision_config")
    if not isinstance(vision, Mapping):
        return ()
    fields = Fields(cast("Mapping[str, Any]", vision), f"{where}, vision_config")
    counts = {"pixtral": _pixtral, "llama4_vision_model": _llama4}.get(str(fields.content.get("model_type")))
    if counts is None:
        return ()
    tower, projector = counts(fields, Fields(content, where), text_hidden)
    return Weight("vision_tower", (tower,), "vision"), Weight("multi_modal_projector", (projector,), "vision")


def _pixtral(vision: Fields, whole: Fields, text_hidden: int) -> tuple[int, int]:
    """Mistral's tower: patches, gated layers without biases; the projector merges neighbouring patches first."""
    hidden, width = vision.size("hidden_size"), vision.size("intermediate_size")
    patches = vision.size("num_channels", 3) * vision.size("patch_size") ** 2 * hidden
    layer = 4 * hidden**2 + 3 * hidden * width + 2 * hidden
    merged = whole.size("spatial_merge_size", 2) ** 2 * hidden
    biases = 2 * text_hidden if whole.flag("multimodal_projector_bias") else 0
    projector = hidden + merged * hidden + hidden * text_hidden + text_hidden**2 + biases
    return patches + hidden + vision.size("num_hidden_layers") * layer, projector


def _llama4(vision: Fields, whole: Fields, text_hidden: int) -> tuple[int, int]:
    """Llama 4's tower: biases throughout, learned positions, and an adapter after pixel shuffle."""
    del whole
    hidden, width = vision.size("hidden_size"), vision.size("intermediate_size")
    patch = vision.size("patch_size")
    num_patches = (vision.size("image_size") // patch) ** 2 + 1
    ends = vision.size("num_channels", 3) * patch**2 * hidden + hidden + num_patches * hidden + 4 * hidden
    layer = 4 * (hidden**2 + hidden) + 2 * hidden * width + width + hidden + 4 * hidden
    adapter = width * vision.size("projector_input_dim") + vision.size("projector_output_dim") ** 2
    tower = ends + vision.size("num_hidden_layers") * layer + adapter
    return tower, vision.size("vision_output_dim") * text_hidden
