"""Selects and fills the table of original names for a denoiser."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from multimodal_gen.runtime.loader.original import (
    flux,
    flux2,
    hunyuan_video,
    krea2,
    ltx_video,
    minimax_h3,
    pixart,
    qwen_image_21,
    sana,
    stable_diffusion_3,
    wan,
    z_image,
)
from multimodal_gen.runtime.loader.original.table import SHIFT_FIRST, NameTable
from multimodal_gen.runtime.loader.original.unet import unet_names

_TABLES: Mapping[str, NameTable] = {
    "ChromaTransformer2DModel": flux.CHROMA_NAMES,
    "FluxTransformer2DModel": flux.NAMES,
    "Flux2Transformer2DModel": flux2.NAMES,
    "HunyuanVideoTransformer3DModel": hunyuan_video.NAMES,
    "Krea2Transformer2DModel": krea2.NAMES,
    "LTXVideoTransformer3DModel": ltx_video.NAMES,
    "MiniMaxH3Transformer3DModel": minimax_h3.NAMES,
    "PixArtTransformer2DModel": pixart.NAMES,
    "QwenImage21Transformer2DModel": qwen_image_21.NAMES,
    "SD3Transformer2DModel": stable_diffusion_3.NAMES,
    "SanaTransformer2DModel": sana.NAMES,
    "WanTransformer3DModel": wan.NAMES,
    "WanVACETransformer3DModel": wan.VACE_NAMES,
    "ZImageTransformer2DModel": z_image.NAMES,
}
"""Models whose original names are not diffusers'."""
_SIBLINGS: Mapping[str, Sequence[str]] = {
    "FluxTransformer2DModel": flux.SIBLINGS,
    "Flux2Transformer2DModel": flux2.SIBLINGS,
    "HunyuanVideoTransformer3DModel": hunyuan_video.SIBLINGS,
    "WanTransformer3DModel": wan.SIBLINGS,
}


_VARYING: Mapping[str, Sequence[str]] = {"WanTransformer3DModel": wan.VARYING}
_ALPHAS: Mapping[str, str] = {"MiniMaxH3Transformer3DModel": minimax_h3.ALPHA}
_BY_HEAD: Mapping[str, tuple[str, str]] = {"MiniMaxH3Transformer3DModel": minimax_h3.BY_HEAD}
"""Models whose authors store fused queries, keys and values head by head: ends of the names of the
queries and of their norm."""


class Original(NamedTuple):
    """Modules of diffusers that one of the original ones is split into, in order of its rows."""

    modules: tuple[str, ...]
    swapped: bool = False
    """Whether the halves of its rows change places."""


@dataclass(frozen=True)
class OriginalNames:
    """Names of a denoiser's modules beside diffusers' own."""

    names: Mapping[str, Original] = field(default_factory=dict)
    siblings: Collection[str] = ()
    """Diffusers' names of modules that other models of this class have."""
    varying: Collection[str] = ()
    """Those whose inputs differ between models of this class."""
    alpha: str = ""
    """Entry of the metadata of LoRAs that is the alpha of all modules."""
    norms: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    """Norm over one head, by the modules of a fused one that is stored head by head."""


def original_names(class_name: str, modules: Collection[str]) -> OriginalNames:
    """Names for the model of this class in diffusers that has these modules."""
    if class_name == "UNet2DConditionModel":
        return OriginalNames({name: Original((ours,)) for name, ours in unet_names(modules)})
    siblings = {
        name
        for sibling in _SIBLINGS.get(class_name, ())
        for name, _ in _filled(sibling, "", modules)
    } - set(modules)
    known = siblings.union(modules)
    names = {
        name: original
        for template, theirs in _TABLES.get(class_name, {}).items()
        for filled, name in _filled(theirs, template, modules)
        if known.issuperset((original := _original(filled)).modules)
    }
    queries, norm = _BY_HEAD.get(class_name, ("", ""))
    norms = {
        fused: f"{fused[0].removesuffix(queries)}{norm}"
        for fused, _ in names.values()
        if norm and fused[0].endswith(queries)
    }
    alpha = _ALPHAS.get(class_name, "")
    return OriginalNames(names, siblings, _VARYING.get(class_name, ()), alpha, norms)


def _filled(theirs: str, template: str, modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """Both names for each block that the model has, by the first of diffusers' names."""
    before, mark, _ = theirs.removeprefix(SHIFT_FIRST).replace("$", "#").partition("#")
    if not mark:
        yield theirs, template
        return
    block = re.compile(re.escape(before) + r"(\d+)\.")
    numbers = sorted({int(match[1]) for match in map(block.match, modules) if match})
    mark = "$" if "$" in theirs else "#"
    for number in numbers[-1:] if mark == "$" else numbers:
        yield theirs.replace(mark, str(number)), template.replace(mark, str(number))


def _original(theirs: str) -> Original:
    plain = theirs.removeprefix(SHIFT_FIRST)
    return Original(tuple(plain.split()), swapped=plain != theirs)
