"""IP-Adapters of Stable Diffusion, SDXL and FLUX.1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from multimodal_gen.checkpoints.files import inside
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.controls.control import (
    Control,
    ControlDescription,
    ControlKind,
    ControlTarget,
)
from multimodal_gen.runtime.controls.ip_adapter.adapter import IPAdapter
from multimodal_gen.runtime.controls.ip_adapter.adapter_tensors import AdapterTensors
from multimodal_gen.runtime.controls.ip_adapter.picture_encoder import (
    FOLDER,
    PictureEncoder,
    encoder_config,
)
from multimodal_gen.runtime.controls.ip_adapter.places import PromptPlaces, places_in
from multimodal_gen.runtime.controls.ip_adapter.projections import projection_of
from multimodal_gen.runtime.loader.tensors.safetensors_copy import held_tensors
from multimodal_gen.runtime.loader.tensors.weights import fill

_FACES = (
    "FaceID is not supported: it needs the embedding of a face by insightface, which downloads "
    "models that are not free to use"
)


class IPAdapterKind(ControlKind):
    """Projection, keys and values in one file, with the image encoder in a folder beside it."""

    def reads(self, described: ControlDescription) -> bool:
        return AdapterTensors.of(described.header.tensors).is_adapter

    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        tensors = AdapterTensors.of(described.header.tensors)
        if tensors.needs_face:
            raise InvalidCheckpoint(_FACES)
        places = _places(target)
        if places is None:
            return "is an IP-Adapter, for Stable Diffusion, SDXL or FLUX.1"
        if tensors.widths != [*places.widths]:
            return f"is for {_shown(tensors.widths)}, not {_shown(places.widths)}"
        _check_encoder(tensors, described.file.weights.parent)
        return None

    def load(self, described: ControlDescription, target: ControlTarget) -> Control:
        context, root = target.context, described.file.weights.parent
        tensors = AdapterTensors.of(described.header.tensors)
        places = _places(target)
        assert places is not None
        projection = projection_of(tensors.projection_shapes)
        with torch.device("meta"):
            keys_values = [
                places.keys_values(at, projection.width, bias=tensors.has_bias)
                for at in range(len(places.widths))
            ]
        parts = nn.ModuleDict(
            {"projection": projection, "keys_values": nn.ModuleList(keys_values)}
        ).requires_grad_(False)
        fill(
            parts,
            held_tensors(described.header),
            tensors.key_map(parts.state_dict()),
            name=described.file.weights.name,
            device=context.device,
            dtype=context.dtype,
        )
        encoder = PictureEncoder.load(root, context.dtype, context.device)
        return IPAdapter(encoder, projection, keys_values, places)


KIND = IPAdapterKind()


def _places(target: ControlTarget) -> PromptPlaces | None:
    found = (places_in(module, target.context) for module in target.modules.values())
    return next((places for places in found if places is not None), None)


def _shown(widths: Sequence[int]) -> str:
    return f"{len(widths)} attentions of width {', '.join(map(str, sorted({*widths})))}"


def _check_encoder(tensors: AdapterTensors, root: Path) -> None:
    """Raise InvalidCheckpoint unless the image encoder is there and of the projection's width."""
    if not inside(root, FOLDER).is_dir():
        raise InvalidCheckpoint(f"needs its image encoder, in a folder {FOLDER}/ beside its file")
    projection = projection_of(tensors.projection_shapes)
    name = "hidden_size" if projection.sees_states else "projection_dim"
    found = encoder_config(root).get(name)
    if found not in (None, projection.features):
        raise InvalidCheckpoint(
            f"{FOLDER}/config.json: {name}={found} must be {projection.features}, as the adapter "
            "was made with"
        )
