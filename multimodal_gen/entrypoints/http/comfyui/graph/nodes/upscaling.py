"""Nodes that enlarge what a sampler made: by a model, or to be sampled once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multimodal_gen.checkpoints.upscaler.folder import scale_of
from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    MAX_SIDE,
    Input,
    NodeClass,
    choice,
    integer,
    link,
    real,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    DecodedImages,
    EnlargedLatent,
    Enlarging,
    Given,
    SampledLatent,
    UpscaleModelValue,
)

_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")


def upscaling(files: Sequence[str]) -> tuple[NodeClass, ...]:
    name = Input("COMBO", choices=tuple(files), open=True)
    latent = {"samples": link("LATENT"), "upscale_method": choice(*_METHODS)}
    sides = {side: integer(512, 0, MAX_SIDE, 8) for side in ("width", "height")}
    crop = {"crop": choice("disabled", "center")}
    return (
        NodeClass(
            "UpscaleModelLoader",
            "Load Upscale Model",
            "loaders",
            {"model_name": name},
            lambda inputs: (UpscaleModelValue(inputs.given("model_name")),),
            ("UPSCALE_MODEL",),
        ),
        NodeClass(
            "ImageUpscaleWithModel",
            "Upscale Image (using Model)",
            "image/upscaling",
            {"upscale_model": link("UPSCALE_MODEL"), "image": link("IMAGE")},
            _by_model,
            ("IMAGE",),
        ),
        NodeClass(
            "LatentUpscaleBy",
            "Upscale Latent By",
            "latent",
            {**latent, "scale_by": real(1.5, 0.01, 8.0)},
            _latent_by,
            ("LATENT",),
        ),
        NodeClass(
            "LatentUpscale",
            "Upscale Latent",
            "latent",
            {**latent, **sides, **crop},
            _latent_to,
            ("LATENT",),
        ),
    )


def _by_model(inputs: NodeInputs) -> tuple[object, ...]:
    model = inputs.linked("upscale_model", UpscaleModelValue)
    sampled = _once(inputs, "image", inputs.linked("image", DecodedImages).sampled)
    scale = scale_of(str(model.name.value))
    enlarging = Enlarging(Given(scale, model.name.node, model.name.name), model.name)
    return (DecodedImages(replace(sampled, enlarging=enlarging)),)


def scaled_by(inputs: NodeInputs, images: DecodedImages) -> DecodedImages:
    """Results of a model, scaled further; `inputs` are those of ImageScaleBy."""
    enlarging = images.sampled.enlarging
    if enlarging is None or enlarging.model is None or enlarging.again is not None:
        raise inputs.refused("image", "must be a loaded image, or what an upscale model made")
    inputs.ignored.add("upscale_method")
    factor = inputs.given("scale_by")
    factor = replace(factor, value=factor.value * enlarging.factor.value)
    return DecodedImages(replace(images.sampled, enlarging=replace(enlarging, factor=factor)))


def _latent_by(inputs: NodeInputs) -> tuple[object, ...]:
    return (_enlarged(inputs, inputs.given("scale_by")),)


def _latent_to(inputs: NodeInputs) -> tuple[object, ...]:
    width, height = inputs.given("width"), inputs.given("height")
    first = inputs.linked("samples", SampledLatent).latent
    inputs.ignored.add("crop")
    if not isinstance(first.width, Given) or not isinstance(first.height, Given):
        raise inputs.refused("samples", "must be of a given size: use LatentUpscaleBy")
    across, down = width.value / first.width.value, height.value / first.height.value
    factor = max(across, down)
    if 0 < min(across, down) < 0.99 * factor:
        raise inputs.refused("height", "must keep the shape of the first latent")
    return (_enlarged(inputs, replace(width, value=factor)),)


def _enlarged(inputs: NodeInputs, factor: Given[float]) -> EnlargedLatent:
    inputs.ignored.add("upscale_method")
    sampled = _once(inputs, "samples", inputs.linked("samples", SampledLatent))
    return EnlargedLatent(replace(sampled, enlarging=Enlarging(factor)))


def _once(inputs: NodeInputs, name: str, sampled: SampledLatent) -> SampledLatent:
    if sampled.enlarging is not None:
        raise inputs.refused(name, "must not be enlarged already")
    if sampled.stage is not None and sampled.stage.leaves_noise:
        raise inputs.refused(name, "must be denoised to the end")
    return sampled
