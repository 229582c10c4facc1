"""Prompts, and images that models condition on."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    MAX_SIDE,
    Input,
    Meaning,
    NodeClass,
    choice,
    flag,
    integer,
    link,
    prompt_text,
    real,
)
from multimodal_gen.entrypoints.http.comfyui.graph.image_steps import ScaleStep
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    ConditioningValue,
    Given,
    LatentValue,
    LoadedImage,
    LoadedMask,
    SeenImage,
)
from multimodal_gen.messages.model_info import ModelInfo

_ONE_PROMPT = "all text encoders get the same prompt"


def conditioning(model: ModelInfo) -> tuple[NodeClass, ...]:
    return (*_texts(), *_settings(model), *_with_images(model))


def _texts() -> tuple[NodeClass, ...]:
    clip, text = {"clip": link("CLIP")}, prompt_text()
    size = {side: integer(1024, 0, MAX_SIDE) for side in ("width", "height")}
    crop = {side: integer(0, 0, MAX_SIDE) for side in ("crop_w", "crop_h")}
    target = {side: integer(1024, 0, MAX_SIDE) for side in ("target_width", "target_height")}
    flux = {"clip_l": text, "t5xxl": text, "guidance": real(3.5, 0.0, 100.0)}
    padding = {"empty_padding": choice("none", "empty_prompt")}
    sd3 = {"clip_l": text, "clip_g": text, "t5xxl": text, **padding}
    sdxl = {**size, **crop, **target, "text_g": text, "text_l": text}
    return (
        _text("CLIPTextEncode", {"text": text, **clip}, _encode("text")),
        _text("CLIPTextEncodeFlux", {**clip, **flux}, _encode("t5xxl", "clip_l")),
        _text("CLIPTextEncodeSD3", {**clip, **sd3}, _encode("t5xxl", "clip_g", "clip_l")),
        _text("CLIPTextEncodeSDXL", {**clip, **sdxl}, _encode("text_g", "text_l")),
    )


def _text(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    title = "CLIP Text Encode (Prompt)" if name == "CLIPTextEncode" else name
    return NodeClass(
        name, title, "conditioning", inputs, meaning, ("CONDITIONING",), idle=_ONE_PROMPT
    )


def _encode(*names: str) -> Meaning:
    """Encode the first text that is not empty; the others have an effect only if equal to it."""

    def meaning(inputs: NodeInputs) -> tuple[object, ...]:
        texts = {name: inputs.peek(name) for name in names}
        used = next((name for name in names if texts[name]), names[0])
        text = inputs.given(used)
        for name in names:
            if texts[name] in (text.value, ""):
                inputs.given(name)
        guidance = inputs.given("guidance") if "guidance" in inputs.node.kind.inputs else None
        return (ConditioningValue(text, guidance),)

    return meaning


def _settings(model: ModelInfo) -> tuple[NodeClass, ...]:
    one = {"conditioning": link("CONDITIONING")}
    both = {"positive": link("CONDITIONING"), "negative": link("CONDITIONING")}
    pair = {name: link("CONDITIONING") for name in _PAIR}
    guidance = real(model.defaults.guidance_scale, 0.0, 100.0)
    times = {"start": real(0.0, 0.0, 1.0), "end": real(1.0, 0.0, 1.0)}
    return (
        _one("FluxGuidance", {**one, "guidance": guidance}, _guide),
        _one("ConditioningZeroOut", one, _zero),
        _one("ConditioningSetTimestepRange", {**one, **times}),
        _one("ConditioningCombine", pair, _combine),
        _one("ReferenceLatent", {**one, "latent": link("LATENT", optional=True)}, _refer),
        _one("FluxKontextMultiReferenceLatentMethod", {**one, "reference_latents_method": _METHOD}),
        NodeClass(
            "LTXVConditioning",
            "LTXVConditioning",
            "conditioning/video_models",
            {**both, "frame_rate": real(25.0, 0.0, 1000.0)},
            _set_frame_rate,
            ("CONDITIONING", "CONDITIONING"),
            ("positive", "negative"),
        ),
    )


_PAIR = ("conditioning_1", "conditioning_2")
_METHOD = choice("index", "offset", "uxo/uno", "index_timestep_zero")


def _one(name: str, inputs: dict[str, Input], meaning: Meaning | None = None) -> NodeClass:
    return NodeClass(
        name, name, "advanced/conditioning", inputs, meaning or _same, ("CONDITIONING",)
    )


def _same(inputs: NodeInputs) -> tuple[object, ...]:
    return (inputs.linked("conditioning", ConditioningValue),)


def _guide(inputs: NodeInputs) -> tuple[object, ...]:
    before = inputs.linked("conditioning", ConditioningValue)
    return (replace(before, guidance=inputs.given("guidance")),)


def _zero(inputs: NodeInputs) -> tuple[object, ...]:
    return (replace(inputs.linked("conditioning", ConditioningValue), text=None),)


def _combine(inputs: NodeInputs) -> tuple[object, ...]:
    """One prompt, which SD 3's graphs combine with zeros for a part of the time."""
    given = [inputs.linked(name, ConditioningValue) for name in _PAIR]
    texts = [each for each in given if each.text is not None]
    if len(texts) == 2:
        raise inputs.refused(_PAIR[1], "an image has one prompt, which only zeros can be added to")
    return (texts[0] if texts else given[0],)


def _refer(inputs: NodeInputs) -> tuple[object, ...]:
    before = inputs.linked("conditioning", ConditioningValue)
    latent = inputs.optional("latent", LatentValue)
    if latent is None:
        return (before,)
    if latent.image is None:
        raise inputs.refused("latent", "must be an encoded image")
    return (replace(before, references=(*before.references, latent.image)),)


def _set_frame_rate(inputs: NodeInputs) -> tuple[object, ...]:
    rate = inputs.given("frame_rate")
    both = (inputs.linked(name, ConditioningValue) for name in _SIGNS)
    return tuple(replace(each, frame_rate=rate) for each in both)


def _with_images(model: ModelInfo) -> tuple[NodeClass, ...]:
    both = {"positive": link("CONDITIONING"), "negative": link("CONDITIONING")}
    vae, text = {"vae": link("VAE")}, {"clip": link("CLIP"), "prompt": prompt_text()}
    three = {f"image{number}": link("IMAGE", optional=True) for number in (1, 2, 3)}
    maybe = {"vae": link("VAE", optional=True)}
    defaults = model.defaults
    size = {
        "width": integer(defaults.width, 16, MAX_SIDE, model.size_multiple),
        "height": integer(defaults.height, 16, MAX_SIDE, model.size_multiple),
        "length": integer(
            defaults.num_frames, model.limits.min_frames, MAX_SIDE, model.frame_multiple
        ),
        "batch_size": integer(1, 1, 4096),
    }
    seen = {"clip_vision_output": link("CLIP_VISION_OUTPUT", optional=True)}
    first = {"start_image": link("IMAGE", optional=True)}
    ends = {
        **{name: link("CLIP_VISION_OUTPUT", optional=True) for name in _SEEN_AT.values()},
        **{name: link("IMAGE", optional=True) for name in _SEEN_AT},
    }
    controls = {
        "control_video": link("IMAGE", optional=True),
        "control_masks": link("MASK", optional=True),
        "reference_image": link("IMAGE", optional=True),
    }
    ltx = {"image": link("IMAGE"), **size, "strength": real(1.0, 0.0, 1.0, optional=True)}
    mask = {"pixels": link("IMAGE"), "mask": link("MASK"), "noise_mask": flag(True)}
    edit = {**text, **maybe, "image": link("IMAGE", optional=True)}
    return (
        _one("TextEncodeQwenImageEdit", edit, _edit("image")),
        _one("TextEncodeQwenImageEditPlus", {**text, **maybe, **three}, _edit(*three)),
        _start("InpaintModelConditioning", {**both, **vae, **mask}, _inpaint),
        _start("WanImageToVideo", {**both, **vae, **size, **seen, **first}, _first_frame),
        _start("WanFirstLastFrameToVideo", {**both, **vae, **size, **ends}, _first_and_last_frame),
        NodeClass(
            "WanVaceToVideo",
            "WanVaceToVideo",
            "conditioning/video_models",
            {**both, **vae, **size, "strength": real(1.0, 0.0, 1000.0), **controls},
            _reference,
            ("CONDITIONING", "CONDITIONING", "LATENT", "INT"),
            ("positive", "negative", "latent", "trim_latent"),
        ),
        _start("LTXVImgToVideo", {**both, **vae, **ltx}, _first_frame),
        NodeClass(
            "Wan22ImageToVideoLatent",
            "Wan22ImageToVideoLatent",
            "conditioning/inpaint",
            {**vae, **size, **first},
            lambda inputs: (_video_latent(inputs),),
            ("LATENT",),
        ),
    )


def _start(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    outputs = ("CONDITIONING", "CONDITIONING", "LATENT")
    names = ("positive", "negative", "latent")
    return NodeClass(name, name, "conditioning", inputs, meaning, outputs, names)


def _edit(*names: str) -> Meaning:
    def meaning(inputs: NodeInputs) -> tuple[object, ...]:
        images = chain.from_iterable(map(inputs.images, names))
        return (ConditioningValue(inputs.given("prompt"), references=tuple(images)),)

    return meaning


def _inpaint(inputs: NodeInputs) -> tuple[object, ...]:
    image, mask = inputs.image("pixels"), inputs.linked("mask", LoadedMask)
    latent = LatentValue(inputs.node.id, image=image, mask=mask, mask_from=inputs.node.id)
    return *_both(inputs), latent


def _first_frame(inputs: NodeInputs) -> tuple[object, ...]:
    return *_both(inputs), _video_latent(inputs)


def _first_and_last_frame(inputs: NodeInputs) -> tuple[object, ...]:
    latent = _video_latent(inputs)
    return *_both(inputs), replace(latent, last_frame=_frame(inputs, "end_image", latent))


def _reference(inputs: NodeInputs) -> tuple[object, ...]:
    for name in ("control_video", "control_masks"):
        if inputs.has(name):
            raise inputs.refused(name, "graphs can't load videos: send it to /v1/videos")
    latent = replace(_video_latent(inputs), references=inputs.images("reference_image"))
    return *_both(inputs), latent, Given(0, inputs.node.id, "trim_latent")


def _both(inputs: NodeInputs) -> tuple[ConditioningValue, ConditioningValue]:
    return inputs.linked("positive", ConditioningValue), inputs.linked(
        "negative", ConditioningValue
    )


def _video_latent(inputs: NodeInputs) -> LatentValue:
    latent = LatentValue(
        inputs.node.id,
        inputs.side("width"),
        inputs.side("height"),
        inputs.given("batch_size"),
        inputs.given("length"),
    )
    name = "image" if "image" in inputs.node.kind.inputs else "start_image"
    return replace(latent, first_frame=_frame(inputs, name, latent))


def _frame(inputs: NodeInputs, name: str, latent: LatentValue) -> LoadedImage | None:
    """An image of the size of the latent, if it is given."""
    image, (width, height) = inputs.optional(name, LoadedImage), (latent.width, latent.height)
    seen_at = _SEEN if _SEEN in inputs.node.kind.inputs else _SEEN_AT.get(name, _SEEN)
    seen = inputs.optional(seen_at, SeenImage)
    if seen is not None and image is not None and seen.image.file != image.file:
        raise inputs.refused(seen_at, f"must be of the same image as {name}")
    if image is None or not (isinstance(width, Given) and isinstance(height, Given)):
        return image
    fitting = ScaleStep("bilinear", width.value, height.value, centre=True)
    return replace(image, steps=(*image.steps, fitting))


_SIGNS = ("positive", "negative")
_SEEN = "clip_vision_output"
_SEEN_AT = {"start_image": "clip_vision_start_image", "end_image": "clip_vision_end_image"}
"""Inputs for what a vision encoder sees of a frame, where both have their own."""
