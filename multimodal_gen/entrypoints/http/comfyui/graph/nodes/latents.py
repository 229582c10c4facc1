"""Latents that samplers start from."""

from __future__ import annotations

from dataclasses import replace

from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    MAX_SIDE,
    Input,
    Meaning,
    NodeClass,
    integer,
    link,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    DecodedImages,
    EnlargedLatent,
    Given,
    LatentValue,
    LoadedMask,
    SampledLatent,
)
from multimodal_gen.messages.model_info import ModelInfo

_IMAGES = (
    ("EmptyLatentImage", "Empty Latent Image"),
    ("EmptySD3LatentImage", "EmptySD3LatentImage"),
    ("EmptyFlux2LatentImage", "Empty Flux 2 Latent"),
    ("EmptyHunyuanImageLatent", "EmptyHunyuanImageLatent"),
)
_VIDEOS = (
    ("EmptyHunyuanLatentVideo", "Empty HunyuanVideo 1.0 Latent"),
    ("EmptyLTXVLatentVideo", "EmptyLTXVLatentVideo"),
    ("EmptyMochiLatentVideo", "EmptyMochiLatentVideo"),
)
_TILED = "the whole latent is processed at once"


def latents(model: ModelInfo) -> tuple[NodeClass, ...]:
    defaults = model.defaults
    batch = {"batch_size": integer(1, 1, 4096)}
    sides = {
        "width": integer(defaults.width, 16, MAX_SIDE, model.size_multiple),
        "height": integer(defaults.height, 16, MAX_SIDE, model.size_multiple),
    }
    frames = {
        "length": integer(
            defaults.num_frames, model.limits.min_frames, MAX_SIDE, model.frame_multiple
        )
    }
    return (
        *(_latent(name, {**sides, **batch}, _empty, title) for name, title in _IMAGES),
        *(_latent(name, {**sides, **frames, **batch}, _empty, title) for name, title in _VIDEOS),
        *_encoders(),
        *_decoders(),
    )


def _encoders() -> tuple[NodeClass, ...]:
    image = {"pixels": link("IMAGE"), "vae": link("VAE")}
    mask = {"mask": link("MASK")}
    amount = {"samples": link("LATENT"), "amount": integer(1, 1, 64)}
    return (
        _latent("VAEEncode", image, _encode, "VAE Encode"),
        _latent("VAEEncodeTiled", {**image, **_tiles()}, _encode, "VAE Encode (Tiled)"),
        _latent(
            "VAEEncodeForInpaint",
            {**image, **mask, "grow_mask_by": integer(6, 0, 64)},
            _encode_masked,
            "VAE Encode (for Inpainting)",
        ),
        _latent(
            "SetLatentNoiseMask",
            {"samples": link("LATENT"), **mask},
            _set_mask,
            "Set Latent Noise Mask",
        ),
        _latent("RepeatLatentBatch", amount, _repeat, "Repeat Latent Batch"),
    )


def _decoders() -> tuple[NodeClass, ...]:
    samples = {"samples": link("LATENT"), "vae": link("VAE")}
    tiled = {**samples, **_tiles()}
    return (
        NodeClass("VAEDecode", "VAE Decode", "latent", samples, _decode, ("IMAGE",)),
        NodeClass(
            "TrimVideoLatent",
            "TrimVideoLatent",
            "latent/video",
            {"samples": link("LATENT"), "trim_amount": integer(0, 0, 99999)},
            _trim,
            ("LATENT",),
        ),
        NodeClass(
            "VAEDecodeTiled",
            "VAE Decode (Tiled)",
            "latent",
            tiled,
            _decode,
            ("IMAGE",),
            idle=_TILED,
        ),
    )


def _tiles() -> dict[str, Input]:
    return {
        "tile_size": integer(512, 64, 4096, 32),
        "overlap": integer(64, 0, 4096, 32),
        "temporal_size": integer(64, 8, 4096, 4, optional=True),
        "temporal_overlap": integer(8, 4, 4096, 4, optional=True),
    }


def _latent(name: str, inputs: dict[str, Input], meaning: Meaning, title: str) -> NodeClass:
    return NodeClass(name, title, "latent", inputs, meaning, ("LATENT",), idle=_TILED)


def _empty(inputs: NodeInputs) -> tuple[object, ...]:
    frames = inputs.given("length") if "length" in inputs.node.kind.inputs else None
    size = inputs.side("width"), inputs.side("height")
    return (LatentValue(inputs.node.id, *size, inputs.given("batch_size"), frames),)


def _encode(inputs: NodeInputs) -> tuple[object, ...]:
    found = inputs.anything("pixels")
    if isinstance(found, DecodedImages) and found.sampled.enlarging is not None:
        return (EnlargedLatent(found.sampled),)
    return (LatentValue(inputs.node.id, image=inputs.image("pixels")),)


def _encode_masked(inputs: NodeInputs) -> tuple[object, ...]:
    mask = replace(
        inputs.linked("mask", LoadedMask), grow=inputs.value("grow_mask_by"), erases=True
    )
    image = inputs.image("pixels")
    return (LatentValue(inputs.node.id, image=image, mask=mask, mask_from=inputs.node.id),)


def _set_mask(inputs: NodeInputs) -> tuple[object, ...]:
    latent = inputs.linked("samples", LatentValue)
    if latent.image is None:
        raise inputs.refused("samples", "must be an encoded image")
    mask = inputs.linked("mask", LoadedMask)
    return (replace(latent, mask=mask, mask_from=inputs.node.id),)


def _repeat(inputs: NodeInputs) -> tuple[object, ...]:
    latent, amount = inputs.linked("samples", LatentValue), inputs.given("amount")
    before = 1 if latent.batch is None else latent.batch.value
    batch = Given(before * amount.value, amount.node, amount.name)
    return (replace(latent, batch=batch),)


def _trim(inputs: NodeInputs) -> tuple[object, ...]:
    """Return the latent as it is: the engine leaves out the frames of references by itself."""
    if inputs.value("trim_amount"):
        raise inputs.refused("trim_amount", "must be 0, or WanVaceToVideo's trim_latent")
    return (inputs.linked("samples", SampledLatent),)


def _decode(inputs: NodeInputs) -> tuple[object, ...]:
    sampled = inputs.linked("samples", SampledLatent)
    if sampled.stage is not None and sampled.stage.leaves_noise:
        raise inputs.refused("samples", "must be denoised to the end")
    return (DecodedImages(sampled),)
