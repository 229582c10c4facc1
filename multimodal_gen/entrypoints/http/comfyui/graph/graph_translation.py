"""Translates a graph into the parameters of one request per sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multimodal_gen.configs.lora_choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.comfyui.errors import (
    InvalidInput,
    meaningless,
    shown,
)
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Graph, Node
from multimodal_gen.entrypoints.http.comfyui.graph.samplers import samplers_of
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo

_EMPTY = ("EmptyLatentImage", "EmptySD3LatentImage", "EmptyHunyuanLatentVideo")
_FROM_PICTURE = ("VAEEncode", "VAEEncodeForInpaint", "SetLatentNoiseMask")
_SHOWN = 20


@dataclass(frozen=True)
class FileInput:
    """A file that a node loads: the image, or one channel as a mask."""

    node: str
    file: str
    channel: str = "alpha"
    grow: int = 0
    """Pixels by which the mask grows."""
    erases: bool = False
    """Whether the masked area is first filled with grey."""


@dataclass
class Sampling:
    """One sampler, with its parameters, input files and output nodes."""

    sampler: Node
    params: SamplingParams
    image: FileInput | None
    mask: FileInput | None
    origins: Mapping[str, tuple[str, str]]
    """Node id and input name that each parameter comes from."""
    outputs: list[Node] = field(default_factory=list)

    def blamed(self, error: InvalidRequest) -> InvalidInput:
        """Convert an error of a parameter to one of the input that it comes from."""
        named = error.field or ""
        node, name = self.origins.get(named, (self.sampler.id, "model"))
        return meaningless(node, name, error.message)


class GraphTranslator:
    """Follows a graph's links upstream from its outputs. Raises InvalidInput for graphs that this
    server can't run."""

    def __init__(self, graph: Graph, model: ModelInfo, loras: Sequence[str] = ()) -> None:
        self._graph = graph
        self._model = model
        self._loras = loras

    def sampler_of(self, output: Node) -> Node:
        """Return the sampler upstream of an output node."""
        name = "images"
        if "video" in output.kind.inputs:
            output = self._from(output, "video", "CreateVideo")
        decode = self._from(output, name, "VAEDecode")
        return self._from(decode, "samples", "KSampler")

    def fps_of(self, output: Node) -> int | None:
        """Return the frames per second of a video output; None for images."""
        if "video" not in output.kind.inputs:
            return None
        fps: float = self._graph.value(self._from(output, "video", "CreateVideo"), "fps")
        return round(fps)

    def translate(self, sampler: Node) -> Sampling:
        found = _Findings()
        self._texts(sampler, found)
        self._add_loras(sampler, found)
        self._numbers(sampler, found)
        latent = self._from(sampler, "latent_image", *_EMPTY, *_FROM_PICTURE)
        if latent.kind.name in _EMPTY:
            self._empty(sampler, latent, found)
        else:
            self._pictures(sampler, latent, found)
        try:
            params = SamplingParams(**found.values)
        except InvalidRequest as error:
            node, name = found.origins.get(error.field or "", (sampler.id, "model"))
            raise meaningless(node, name, error.message) from error
        return Sampling(sampler, params, found.image, found.mask, found.origins)

    def _texts(self, sampler: Node, found: _Findings) -> None:
        for name, parameter in (("positive", "prompt"), ("negative", "negative_prompt")):
            node = self._from(sampler, name, "CLIPTextEncode", "FluxGuidance")
            while node.kind.name == "FluxGuidance":
                if name == "positive" and "guidance_scale" not in found.values:
                    self._guidance(node, found)
                node = self._from(node, "conditioning", "CLIPTextEncode", "FluxGuidance")
            found.put(parameter, self._graph.value(node, "text"), node, "text")

    def _guidance(self, node: Node, found: _Findings) -> None:
        if not self._guidance_is_embedded:
            why = f"{self._model.family} supports no guidance other than the sampler's cfg"
            raise meaningless(node.id, "guidance", why)
        found.put("guidance_scale", self._graph.value(node, "guidance"), node, "guidance")

    def _add_loras(self, sampler: Node, found: _Findings) -> None:
        choices = []
        node = self._from(sampler, "model", "CheckpointLoaderSimple", "LoraLoader")
        while node.kind.name == "LoraLoader":
            scale = self._graph.value(node, "strength_model")
            if self._graph.value(node, "strength_clip") != scale:
                why = f"must equal strength_model={scale}: a LoRA has one strength"
                raise meaningless(node.id, "strength_clip", why)
            choices.append(LoraChoice(self._lora(node), scale))
            found.put("lora", tuple(reversed(choices)), node, "lora_name")
            node = self._from(node, "model", "CheckpointLoaderSimple", "LoraLoader")

    def _lora(self, node: Node) -> str:
        """Return the LoRA's name from the file name in the graph."""
        given = str(self._graph.value(node, "lora_name"))
        name = given.removesuffix(".safetensors")
        if name not in self._loras:
            known = ", ".join(self._loras[:_SHOWN]) or "none"
            raise meaningless(
                node.id, "lora_name", f"{shown(given)} is unknown; available: {known}"
            )
        return name

    def _numbers(self, sampler: Node, found: _Findings) -> None:
        value = self._graph.value
        # ComfyUI's seeds have one more bit.
        seed = value(sampler, "seed") % (self._model.max_seed + 1)
        found.put("seed", seed, sampler, "seed")
        found.put("num_inference_steps", value(sampler, "steps"), sampler, "steps")
        cfg = "true_cfg_scale" if self._guidance_is_embedded else "guidance_scale"
        found.put(cfg, value(sampler, "cfg"), sampler, "cfg")
        solver = samplers_of(self._model.schedulers)[value(sampler, "sampler_name")]
        found.put("scheduler", solver, sampler, "sampler_name")

    def _empty(self, sampler: Node, latent: Node, found: _Findings) -> None:
        if self._graph.value(sampler, "denoise") != 1:
            why = "must be 1 if the sampler starts from an empty latent"
            raise meaningless(sampler.id, "denoise", why)
        for name in ("width", "height"):
            found.put(name, self._graph.value(latent, name), latent, name)
        found.origins["size"] = latent.id, "width"
        batch = self._graph.value(latent, "batch_size")
        found.put("num_outputs_per_prompt", batch, latent, "batch_size")
        if "length" in latent.kind.inputs:
            found.put("num_frames", self._graph.value(latent, "length"), latent, "length")
        elif self._model.defaults.num_frames > 1:
            found.put("num_frames", 1, latent, "batch_size")

    def _pictures(self, sampler: Node, latent: Node, found: _Findings) -> None:
        encoder, masked = latent, latent if "mask" in latent.kind.inputs else None
        if latent.kind.name == "SetLatentNoiseMask":
            encoder = self._from(latent, "samples", "VAEEncode")
        loader = self._from(encoder, "pixels", "LoadImage")
        found.image = FileInput(loader.id, self._graph.value(loader, "image"))
        found.origins["image_path"] = loader.id, "image"
        found.origins["size"] = found.origins["width"] = found.origins["height"] = (
            loader.id,
            "image",
        )
        if masked is not None:
            found.mask = self._mask(masked)
            found.origins["mask_path"] = masked.id, "mask"
        strength = self._graph.value(sampler, "denoise")
        task = "image-to-image" if found.mask is None else "inpainting"
        # Models that take the image as conditioning don't start from it: no strength applies.
        if strength < 1 or task in self._model.tasks:
            found.put("strength", strength, sampler, "denoise")

    def _mask(self, node: Node) -> FileInput:
        loader = self._from(node, "mask", "LoadImage", "LoadImageMask")
        value = self._graph.value
        channel = value(loader, "channel") if "channel" in loader.kind.inputs else "alpha"
        erases = "grow_mask_by" in node.kind.inputs
        grow = value(node, "grow_mask_by") if erases else 0
        return FileInput(loader.id, value(loader, "image"), channel, grow, erases)

    @property
    def _guidance_is_embedded(self) -> bool:
        """Whether guidance_scale is embedded in the model, and cfg is true_cfg_scale."""
        return "true_cfg_scale" in self._model.parameters

    def _from(self, node: Node, name: str, *allowed: str) -> Node:
        source, _ = self._graph.source(node, name)
        if source.kind.name not in allowed:
            why = f"must be linked to {' or '.join(allowed)}, not {source.kind.name}"
            raise meaningless(node.id, name, why, linked_node=[source.id, 0])
        return source


@dataclass
class _Findings:
    """Parameters, origins and files found so far."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)
    image: FileInput | None = None
    mask: FileInput | None = None

    def put(self, parameter: str, value: Any, node: Node, name: str) -> None:
        self.values[parameter] = value
        self.origins[parameter] = node.id, name
