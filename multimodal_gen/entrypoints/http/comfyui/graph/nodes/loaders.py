"""Loaders, and patches of the model. A denoiser's loader names the model of the whole graph; other
names of files have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    MAX_SIDE,
    Input,
    Meaning,
    NodeClass,
    choice,
    flag,
    integer,
    link,
    named,
    real,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    EncoderValue,
    Given,
    LoraValue,
    ModelValue,
    SeenImage,
    VaeValue,
    VisionEncoderValue,
)
from multimodal_gen.messages.model_info import ModelInfo

_ENCODERS = (
    *("stable_diffusion", "sd3", "flux", "flux2", "wan", "qwen_image", "hunyuan_video", "ltxv"),
    *("pixart", "lumina2", "sdxl", "stable_cascade", "stable_audio", "mochi", "cosmos", "hidream"),
    *("chroma", "ace", "omnigen2", "hunyuan_image", "ovis"),
)
_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")


DENOISER_FILES = {
    "CheckpointLoaderSimple": "ckpt_name",
    "UNETLoader": "unet_name",
    "UnetLoaderGGUF": "unet_name",
}
"""Inputs that name the model to use, by node."""


def loaders(
    model: ModelInfo, loras: Sequence[str], served: Sequence[str] = ()
) -> tuple[NodeClass, ...]:
    return (
        *_loaders(named(*dict.fromkeys((model.name, *served)))),
        *_loras(named(*loras)),
        *_patches(model),
    )


def _loaders(name: Input) -> tuple[NodeClass, ...]:
    kind = Input("COMBO", choices=_ENCODERS, open=True)
    device = choice("default", "cpu", optional=True)
    dtype = {"weight_dtype": choice(*_DTYPES)}
    one = {"clip_name": name, "type": kind}
    two = {"clip_name1": name, "clip_name2": name, "type": kind}
    three = {f"clip_name{number}": name for number in (1, 2, 3)}
    four = {**three, "clip_name4": name}
    return (
        _loader("CheckpointLoaderSimple", {"ckpt_name": name}, "MODEL", "CLIP", "VAE"),
        _loader("UNETLoader", {"unet_name": name, **dtype}, "MODEL"),
        _loader("UnetLoaderGGUF", {"unet_name": name}, "MODEL"),
        _loader("CLIPLoader", {**one, "device": device}, "CLIP"),
        _loader("CLIPLoaderGGUF", one, "CLIP"),
        _loader("DualCLIPLoader", {**two, "device": device}, "CLIP"),
        _loader("DualCLIPLoaderGGUF", two, "CLIP"),
        _loader("TripleCLIPLoader", three, "CLIP"),
        _loader("QuadrupleCLIPLoader", four, "CLIP"),
        _loader("VAELoader", {"vae_name": name}, "VAE"),
        _loader("CLIPVisionLoader", {"clip_name": name}, "CLIP_VISION"),
    )


def _loader(name: str, inputs: dict[str, Input], *outputs: str) -> NodeClass:
    idle = "the served model is always used"
    return NodeClass(name, _TITLES.get(name, name), "loaders", inputs, _load, outputs, idle=idle)


def _load(inputs: NodeInputs) -> tuple[object, ...]:
    values = {
        "MODEL": ModelValue(inputs.node.id),
        "CLIP": EncoderValue(),
        "VAE": VaeValue(),
        "CLIP_VISION": VisionEncoderValue(),
    }
    return tuple(values[type] for type in inputs.node.kind.outputs)


def _loras(name: Input) -> tuple[NodeClass, ...]:
    strength = real(1.0, -100.0, 100.0)
    model_only = {"model": link("MODEL"), "lora_name": name, "strength_model": strength}
    both = {
        "model": link("MODEL"),
        "clip": link("CLIP"),
        "lora_name": name,
        "strength_model": strength,
        "strength_clip": strength,
    }
    return (
        NodeClass(
            "LoraLoader",
            "Load LoRA",
            "loaders",
            both,
            _add_lora,
            ("MODEL", "CLIP"),
            idle="a LoRA has one strength, strength_model",
        ),
        NodeClass(
            "LoraLoaderModelOnly",
            "LoraLoaderModelOnly",
            "loaders",
            model_only,
            _add_lora,
            ("MODEL",),
        ),
    )


def _add_lora(inputs: NodeInputs) -> tuple[object, ...]:
    model = inputs.linked("model", ModelValue)
    scale = inputs.value("strength_model")
    if "strength_clip" in inputs.node.kind.inputs:
        same = inputs.peek("strength_clip") == scale
        (inputs.read if same else inputs.ignored).add("strength_clip")
    used = LoraValue(inputs.given("lora_name"), scale)
    return replace(model, loras=(*model.loras, used)), EncoderValue()


def _patches(served: ModelInfo) -> tuple[NodeClass, ...]:
    model = {"model": link("MODEL")}
    shifts = {"max_shift": real(1.15, 0.0, 100.0), "base_shift": real(0.5, 0.0, 100.0)}
    sides = {side: integer(1024, 16, MAX_SIDE, 8) for side in ("width", "height")}
    ltx = {"max_shift": real(2.05, 0.0, 100.0), "base_shift": real(0.95, 0.0, 100.0)}
    latent = {"latent": link("LATENT", optional=True)}
    sampling = choice("eps", "v_prediction", "lcm", "x0", "img_to_img")
    own = "the model's own schedule is used"
    apg = {
        "eta": real(1.0, 0.0, 10.0),
        "norm_threshold": real(5.0, 0.0, 50.0),
        "momentum": real(0.0, -1.0, 1.0),
    }
    last = {"clip": link("CLIP"), "stop_at_clip_layer": integer(-1, -24, -1)}
    return (
        _patch("ModelSamplingSD3", {**model, "shift": real(3.0, 0.0, 100.0)}, _shift),
        _patch("ModelSamplingAuraFlow", {**model, "shift": real(1.73, 0.0, 100.0)}, _shift),
        _patch("ModelSamplingFlux", {**model, **shifts, **sides}, _keep_sides, own),
        _patch("ModelSamplingLTXV", {**model, **ltx, **latent}, _keep, own),
        _patch(
            "ModelSamplingDiscrete",
            {**model, "sampling": sampling, "zsnr": flag(False)},
            _keep,
            "the prediction type is the checkpoint's",
        ),
        _patch("CFGNorm", {**model, "strength": real(1.0, 0.0, 100.0)}, _norm_for(served)),
        _patch("DifferentialDiffusion", model, _soften),
        _patch("RescaleCFG", {**model, "multiplier": real(0.7, 0.0, 1.0)}, _rescale),
        _patch("CFGZeroStar", model, _zero_star),
        _patch("APG", {**model, **apg}, _project),
        _patch("TorchCompileModel", {**model, "backend": choice("inductor", "cudagraphs")}, _keep),
        NodeClass(
            "CLIPSetLastLayer",
            "CLIP Set Last Layer",
            "conditioning",
            last,
            lambda _: (EncoderValue(),),
            ("CLIP",),
            idle="prompts are encoded as the model was trained",
        ),
        NodeClass(
            "CLIPVisionEncode",
            "CLIP Vision Encode",
            "conditioning",
            {
                "clip_vision": link("CLIP_VISION"),
                "image": link("IMAGE"),
                "crop": choice("center", "none", optional=True),
            },
            lambda inputs: (SeenImage(inputs.image()),),
            ("CLIP_VISION_OUTPUT",),
        ),
    )


def _patch(
    name: str,
    inputs: dict[str, Input],
    meaning: Meaning,
    idle: str = "not supported by this server",
) -> NodeClass:
    return NodeClass(name, name, "advanced/model", inputs, meaning, ("MODEL",), idle=idle)


def _shift(inputs: NodeInputs) -> tuple[object, ...]:
    return (replace(inputs.linked("model", ModelValue), shift=inputs.given("shift")),)


def _rescale(inputs: NodeInputs) -> tuple[object, ...]:
    return _guided(inputs, guidance_rescale=inputs.given("multiplier"))


def _zero_star(inputs: NodeInputs) -> tuple[object, ...]:
    """The node has no steps without guidance."""
    method, none = (Given(value, inputs.node.id, "model") for value in ("cfg_zero", 0))
    return _guided(inputs, guidance_method=method, zero_init_steps=none)


def _project(inputs: NodeInputs) -> tuple[object, ...]:
    return _guided(
        inputs,
        guidance_method=Given("apg", inputs.node.id, "model"),
        apg_eta=inputs.given("eta"),
        apg_norm=inputs.given("norm_threshold"),
        apg_momentum=inputs.given("momentum"),
    )


def _guided(inputs: NodeInputs, **parameters: Given[Any]) -> tuple[object, ...]:
    model = inputs.linked("model", ModelValue)
    return (replace(model, guidance=(*model.guidance, *parameters.items())),)


def _keep(inputs: NodeInputs) -> tuple[object, ...]:
    return (inputs.linked("model", ModelValue),)


def _norm_for(served: ModelInfo) -> Meaning:
    """Qwen-Image's pipeline rescales its guidance in this way, and no other does."""

    def meaning(inputs: NodeInputs) -> tuple[object, ...]:
        if not served.family.startswith("qwen_image"):
            inputs.warnings.append(f"has no effect: {served.family} has its own guidance")
        return _keep(inputs)

    return meaning


def _soften(inputs: NodeInputs) -> tuple[object, ...]:
    inputs.warnings.append("has no effect: masks are used as in diffusers' inpainting")
    return _keep(inputs)


def _keep_sides(inputs: NodeInputs) -> tuple[object, ...]:
    """The size only determines the shift, which the model derives from the output's size."""
    inputs.side("width"), inputs.side("height")
    return _keep(inputs)


_TITLES = {
    "CheckpointLoaderSimple": "Load Checkpoint",
    "UNETLoader": "Load Diffusion Model",
    "CLIPLoader": "Load CLIP",
    "VAELoader": "Load VAE",
    "CLIPVisionLoader": "Load CLIP Vision",
}
