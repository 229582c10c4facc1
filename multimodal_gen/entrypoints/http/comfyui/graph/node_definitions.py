"""Definitions of the supported nodes, as returned by `/object_info`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multimodal_gen.entrypoints.http.comfyui.graph.samplers import SCHEDULES, samplers_of
from multimodal_gen.messages.model_info import ModelInfo

_MAX_SIDE = 16384
_MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Input:
    """One input of a node: an output type of another node, or a value."""

    type: str
    """`INT`, `FLOAT`, `STRING`, `BOOLEAN`, `COMBO`, or an output type: `MODEL`, `LATENT`, …"""
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    open: bool = False
    """For a COMBO: other values are accepted too."""
    optional: bool = False

    @property
    def is_value(self) -> bool:
        return self.type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

    def to_json(self) -> list[Any]:
        kind: Any = list(self.choices) if self.type == "COMBO" else self.type
        return [kind, dict(self.options)] if self.options else [kind]


@dataclass(frozen=True)
class NodeClass:
    """ComfyUI's description of a kind of node."""

    name: str
    title: str
    category: str
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    is_output: bool = False
    """True for nodes that produce results."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry in `/object_info`."""
        groups = {
            "required": {k: v.to_json() for k, v in self.inputs.items() if not v.optional},
            "optional": {k: v.to_json() for k, v in self.inputs.items() if v.optional},
        }
        given = {name: group for name, group in groups.items() if group or name == "required"}
        return {
            "input": given,
            "input_order": {name: list(group) for name, group in given.items()},
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.output_names or self.outputs),
            "name": self.name,
            "display_name": self.title,
            "description": "",
            "python_module": "nodes",
            "category": self.category,
            "output_node": self.is_output,
        }


NodeDefinitions = Mapping[str, NodeClass]


def definitions_for(
    model: ModelInfo, *, uploads: Sequence[str] = (), loras: Sequence[str] = ()
) -> NodeDefinitions:
    """Nodes, with choices that depend on the model and the client's uploads."""
    nodes = (*_texts(model, loras), *_pictures(uploads), *_latents(model), *_outputs(model))
    return {node.name: node for node in nodes}


def _texts(model: ModelInfo, loras: Sequence[str]) -> tuple[NodeClass, ...]:
    strength = _number("FLOAT", 1.0, -100.0, 100.0)
    lora = Input("COMBO", choices=tuple(loras), open=True)
    # Graphs name the file they were made with: any name is accepted for the one served model.
    checkpoint = Input("COMBO", choices=(model.name,), open=True)
    text = Input("STRING", {"multiline": True, "dynamicPrompts": True})
    return (
        NodeClass(
            "CheckpointLoaderSimple",
            "Load Checkpoint",
            "loaders",
            {"ckpt_name": checkpoint},
            ("MODEL", "CLIP", "VAE"),
        ),
        NodeClass(
            "LoraLoader",
            "Load LoRA",
            "loaders",
            {
                "model": Input("MODEL"),
                "clip": Input("CLIP"),
                "lora_name": lora,
                "strength_model": strength,
                "strength_clip": strength,
            },
            ("MODEL", "CLIP"),
        ),
        NodeClass(
            "CLIPTextEncode",
            "CLIP Text Encode (Prompt)",
            "conditioning",
            {"text": text, "clip": Input("CLIP")},
            ("CONDITIONING",),
        ),
        NodeClass(
            "FluxGuidance",
            "FluxGuidance",
            "advanced/conditioning/flux",
            {
                "conditioning": Input("CONDITIONING"),
                "guidance": _number("FLOAT", model.defaults.guidance_scale, 0.0, 100.0),
            },
            ("CONDITIONING",),
        ),
        NodeClass("KSampler", "KSampler", "sampling", _sampling(model), ("LATENT",)),
    )


def _sampling(model: ModelInfo) -> dict[str, Input]:
    defaults = model.defaults
    scale = defaults.true_cfg_scale or defaults.guidance_scale
    steps = defaults.num_inference_steps
    return {
        "model": Input("MODEL"),
        "seed": Input("INT", {"default": 0, "min": 0, "max": _MAX_SEED}),
        "steps": _number("INT", steps, 1, 10_000),
        "cfg": _number("FLOAT", scale, 0.0, 100.0),
        "sampler_name": Input("COMBO", choices=tuple(samplers_of(model.schedulers))),
        "scheduler": Input("COMBO", choices=SCHEDULES),
        "positive": Input("CONDITIONING"),
        "negative": Input("CONDITIONING"),
        "latent_image": Input("LATENT"),
        "denoise": _number("FLOAT", 1.0, 0.0, 1.0),
    }


def _pictures(uploads: Sequence[str]) -> tuple[NodeClass, ...]:
    file = Input("COMBO", {"image_upload": True}, choices=tuple(uploads), open=True)
    channel = Input("COMBO", choices=("alpha", "red", "green", "blue"))
    return (
        NodeClass("LoadImage", "Load Image", "image", {"image": file}, ("IMAGE", "MASK")),
        NodeClass(
            "LoadImageMask",
            "Load Image (as Mask)",
            "mask",
            {"image": file, "channel": channel},
            ("MASK",),
        ),
        NodeClass(
            "VAEEncode",
            "VAE Encode",
            "latent",
            {"pixels": Input("IMAGE"), "vae": Input("VAE")},
            ("LATENT",),
        ),
        NodeClass(
            "VAEEncodeForInpaint",
            "VAE Encode (for Inpainting)",
            "latent/inpaint",
            {
                "pixels": Input("IMAGE"),
                "vae": Input("VAE"),
                "mask": Input("MASK"),
                "grow_mask_by": _number("INT", 6, 0, 64),
            },
            ("LATENT",),
        ),
        NodeClass(
            "SetLatentNoiseMask",
            "Set Latent Noise Mask",
            "latent/inpaint",
            {"samples": Input("LATENT"), "mask": Input("MASK")},
            ("LATENT",),
        ),
    )


def _latents(model: ModelInfo) -> tuple[NodeClass, ...]:
    defaults = model.defaults
    batch = _number("INT", 1, 1, 4096)
    sides = {
        "width": _number("INT", defaults.width, 16, _MAX_SIDE, model.size_multiple),
        "height": _number("INT", defaults.height, 16, _MAX_SIDE, model.size_multiple),
    }
    frames = _number("INT", defaults.num_frames, 1, _MAX_SIDE, model.frame_multiple)
    return (
        NodeClass(
            "EmptyLatentImage",
            "Empty Latent Image",
            "latent",
            {**sides, "batch_size": batch},
            ("LATENT",),
        ),
        NodeClass(
            "EmptySD3LatentImage",
            "EmptySD3LatentImage",
            "latent/sd3",
            {**sides, "batch_size": batch},
            ("LATENT",),
        ),
        NodeClass(
            "EmptyHunyuanLatentVideo",
            "Empty HunyuanVideo 1.0 Latent",
            "latent/video",
            {**sides, "length": frames, "batch_size": batch},
            ("LATENT",),
        ),
        NodeClass(
            "VAEDecode",
            "VAE Decode",
            "latent",
            {"samples": Input("LATENT"), "vae": Input("VAE")},
            ("IMAGE",),
        ),
    )


def _outputs(model: ModelInfo) -> tuple[NodeClass, ...]:
    images = Input("IMAGE")
    prefix = Input("STRING", {"default": "ComfyUI"})
    return (
        NodeClass(
            "SaveImage",
            "Save Image",
            "image",
            {"images": images, "filename_prefix": prefix},
            is_output=True,
        ),
        NodeClass("PreviewImage", "Preview Image", "image", {"images": images}, is_output=True),
        NodeClass(
            "SaveImageWebsocket",
            "SaveImageWebsocket",
            "api/image",
            {"images": images},
            is_output=True,
        ),
        NodeClass(
            "CreateVideo",
            "Create Video",
            "image/video",
            {
                "images": images,
                "fps": _number("FLOAT", float(model.defaults.fps or 16), 1.0, 120.0),
            },
            ("VIDEO",),
        ),
        NodeClass(
            "SaveVideo",
            "Save Video",
            "image/video",
            {
                "video": Input("VIDEO"),
                "filename_prefix": prefix,
                "format": Input("COMBO", choices=("auto", "mp4")),
                "codec": Input("COMBO", choices=("auto", "h264")),
            },
            is_output=True,
        ),
    )


def _number(type: str, default: float, low: float, high: float, step: int = 1) -> Input:
    options: dict[str, Any] = {"default": default, "min": low, "max": high}
    if step > 1:
        options["step"] = step
    return Input(type, options)
