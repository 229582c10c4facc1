"""The vision tower of a Qwen2.5-VL, which llama.cpp keeps in a file beside the text encoder's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.tensors.derived import Stacked
from multimodal_gen.runtime.loader.tensors.gguf_file import gguf_tensors
from multimodal_gen.runtime.loader.tensors.stored import Rearranged, Span, Stored

_OUTSIDE = {
    "v.patch_embd": "patch_embed.proj",
    "v.post_ln": "merger.ln_q",
    "mm.0": "merger.mlp.0",
    "mm.2": "merger.mlp.2",
}
_LAYERS = {
    "attn_qkv": "attn.qkv",
    "attn_out": "attn.proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ln1": "norm1",
    "ln2": "norm2",
}
_LAYER = re.compile(r"v\.blk\.(\d+)\.(\w+)$")
_LATER_FRAME = "v.patch_embd.weight.1"
_KERNEL = "visual.patch_embed.proj.weight"
_PRECISION = re.compile(r"[-_.](?:ud[-_])?(?:i?q\d\w*|b?f(?:16|32))$")


def vision_tensors(encoder: Path) -> dict[str, Stored]:
    """Tensors of the vision tower that belongs to a text encoder's file, under transformers' names.
    Empty if there is none beside it. Raises InvalidCheckpoint."""
    path = _beside(encoder)
    return {} if path is None else renamed(gguf_tensors(read_header(path)), path.name)


def _beside(encoder: Path) -> Path | None:
    """The file with `mmproj` in its name: the first that has the encoder's name too, or the only
    one."""
    files = (path for path in sorted(encoder.parent.iterdir()) if path.suffix.lower() == ".gguf")
    found = [path for path in files if "mmproj" in path.name.lower() and path.is_file()]
    model = _PRECISION.sub("", encoder.stem.lower())
    named = [path for path in found if model in path.name.lower()]
    return next(iter(named or (found if len(found) == 1 else ())), None)


def renamed(stored: Mapping[str, Stored], what: str) -> dict[str, Stored]:
    """Rename a file's tensors to transformers' names. Raises InvalidCheckpoint."""
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        module, _, kind = name.rpartition(".")
        layer = _LAYER.match(module)
        if layer is not None and layer[2] in ("attn_q", "attn_k", "attn_v"):
            qkv = [stored.get(f"v.blk.{layer[1]}.attn_{part}.{kind}") for part in "qkv"]
            found[f"visual.blocks.{layer[1]}.attn.qkv.{kind}"] = _joined(qkv, name, what)
        elif layer is not None and layer[2] in _LAYERS:
            found[f"visual.blocks.{layer[1]}.{_LAYERS[layer[2]]}.{kind}"] = tensor
        elif module in _OUTSIDE:
            found[f"visual.{_OUTSIDE[module]}.{kind}"] = tensor
        elif name != _LATER_FRAME:
            raise InvalidCheckpoint(f"{what}: unexpected: {name}")
    if later := stored.get(_LATER_FRAME):
        first = found.get(_KERNEL)
        if first is None or first.shape != later.shape or len(first.shape) != 4:
            raise InvalidCheckpoint(f"{what}: {_LATER_FRAME}: does not fit v.patch_embd.weight")
        found[_KERNEL] = Stacked((first, later))
    return found


def _joined(parts: list[Stored | None], name: str, what: str) -> Stored:
    found = [part for part in parts if part is not None and part.shape]
    if len(found) < len(parts) or len({part.shape[1:] for part in found}) > 1:
        raise InvalidCheckpoint(f"{what}: {name}: its queries, keys and values don't fit together")
    spans = tuple(Span(part, 0, part.shape[0]) for part in found)
    return Rearranged(spans, (sum(part.shape[0] for part in found), *found[0].shape[1:]))
