"""Tensors of an IP-Adapter's file, in the layouts in which they are published."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multimodal_gen.checkpoints.tensor_info import TensorInfo

_PROJECTION = re.compile(r"(?:image_proj|ip_adapter_proj_model)\.(?P<name>.+)")
_ATTENTION = re.compile(
    r"ip_adapter\.(?P<number>\d+)\.to_(?P<what>[kv])_ip\.(?P<of>weight|bias)"
    r"|double_blocks\.(?P<number_2>\d+)\.processor"
    r"\.ip_adapter_double_stream_(?P<what_2>[kv])_proj\.(?P<of_2>weight|bias)"
)
_OF_FACES = ("perceiver_resampler.", "_lora.")
"""Parts of names in files that need the embedding of a face."""

OwnShape = tuple[int, ...]


@dataclass(frozen=True)
class AdapterTensors:
    """Names in the file, by what they are for."""

    projection: Mapping[str, str]
    """Of the projection, by their names without a prefix."""
    attentions: tuple[Mapping[str, str], ...]
    """Of each attention, in order: `k.weight`, `v.weight`, and perhaps biases."""
    shapes: Mapping[str, OwnShape]
    """Of all tensors in the file."""

    @classmethod
    def of(cls, tensors: Mapping[str, TensorInfo]) -> AdapterTensors:
        projection: dict[str, str] = {}
        attentions: defaultdict[int, dict[str, str]] = defaultdict(dict)
        for key in tensors:
            if (found := _PROJECTION.fullmatch(key)) is not None:
                projection[found["name"]] = key
            elif (found := _ATTENTION.fullmatch(key)) is not None:
                number, what, of = (
                    found[name] or found[f"{name}_2"] for name in ("number", "what", "of")
                )
                attentions[int(number)][f"{what}.{of}"] = key
        ordered = tuple(attentions[number] for number in sorted(attentions))
        return cls(projection, ordered, {key: info.shape for key, info in tensors.items()})

    @property
    def is_adapter(self) -> bool:
        """True for any IP-Adapter, of a kind that is supported or not."""
        return bool(self.projection) and any("ip_adapter" in key for key in self.shapes)

    @property
    def needs_face(self) -> bool:
        """True for FaceID: its pictures are faces' embeddings."""
        named = any(part in key for key in self.shapes for part in _OF_FACES)
        return named or {"norm.weight", "proj.0.weight"} <= self.projection.keys()

    @property
    def projection_shapes(self) -> dict[str, OwnShape]:
        return {name: self.shapes[key] for name, key in self.projection.items()}

    @property
    def has_bias(self) -> bool:
        return any("k.bias" in attention for attention in self.attentions)

    @property
    def widths(self) -> list[int]:
        """Width of each attention, as the keys' weight has it; 0 without one."""
        shapes = (
            self.shapes.get(attention.get("k.weight", ""), ()) for attention in self.attentions
        )
        return [shape[0] if shape else 0 for shape in shapes]

    def key_map(self, wanted: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The file's tensors for each of the loaded modules': `projection.*`, and
        `keys_values.N.weight`."""
        found: dict[str, tuple[str, ...]] = {}
        for name in wanted:
            part, _, rest = name.partition(".")
            if part == "projection":
                found[name] = (self.projection.get(rest, rest),)
            else:
                number, _, of = rest.partition(".")
                found[name] = _names(self.attentions[int(number)], of)
        return found


def _names(attention: Mapping[str, str], of: str) -> tuple[str, str]:
    """Names of the weight or bias of an attention: keys', then values'."""
    return attention.get(f"k.{of}", f"k.{of}"), attention.get(f"v.{of}", f"v.{of}")
