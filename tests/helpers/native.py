"""Evaluations of the native transformers by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.sequence import SequenceParallel
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.tensor_parallel.parts import make_parts
from multimodal_gen.runtime.loader.tensors.derived import HeldTensor
from multimodal_gen.runtime.loader.tensors.weights import fill
from multimodal_gen.runtime.models.dits.ltx2.model import LTX2Transformer
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.models.dits.z_image.model import ZImageTransformer


def parts_of(mesh: Mesh | None = None) -> Parts:
    """What a transformer is built of on one rank of a mesh, or alone."""
    return make_parts(mesh or Mesh(), select_attention("sdpa"))


def filled(
    make: Callable[[Parts], nn.Module], mesh: Mesh, weights: Mapping[str, Tensor]
) -> nn.Module:
    """A transformer on one rank of a mesh, with these weights of a whole one."""
    with torch.device("meta"):
        module = make(parts_of(mesh)).requires_grad_(False)
    stored = {name: HeldTensor(weight) for name, weight in weights.items()}
    names = {name: (name,) for name in weights}
    fill(module, stored, names, name="transformer", device=torch.device("cpu"))
    return module


def attend(
    sequence: SequenceParallel,
    qkv: Sequence[Tensor],
    streams: Sequence[int],
    lengths: Tensor | None = None,
) -> Tensor:
    """Attention of this rank's share, [B, S_local, H, D] like each of `qkv`."""
    q, k, v = qkv
    attending = sequence.attend(v, streams, lengths)
    attending.start(torch.stack((q, k), dim=2))
    return attending.wait().unflatten(2, v.shape[2:])


def evaluate(model: nn.Module, **inputs: Any) -> Tensor:
    """The velocity for `inputs`; see `with_rotary`."""
    velocity: Tensor = model(**with_rotary(model, **inputs))
    return velocity


def with_rotary(model: Any, **inputs: Any) -> dict[str, Any]:
    """The model's arguments, its rotary table made of `grids`, or of the latents' shape."""
    text = inputs["encoder_hidden_states"].shape[1]
    if "grids" in inputs:
        inputs["rotary"] = model.rotary(text, inputs.pop("grids"))
    elif isinstance(model, LTX2Transformer):
        inputs["rotary"] = [*model.rotary(inputs["grid"], inputs["audio_tokens"])]
    elif isinstance(model, WanTransformer):
        inputs["rotary"] = model.rotary(inputs["hidden_states"].shape[2:])
    elif isinstance(model, ZImageTransformer):
        sizes = inputs["latents"].shape[2:]
        lengths, states = inputs.get("lengths"), inputs.pop("encoder_hidden_states")
        inputs["rotary"] = model.rotary(sizes, text, lengths)
        inputs["text"] = model.refined(states, inputs["rotary"], lengths, inputs.get("lora"))
        inputs["text_tokens"] = text
    return inputs
