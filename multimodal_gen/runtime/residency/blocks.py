"""Finds the blocks of a module that can be streamed."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

_LARGEST = 1 / 16
"""Share of a module that a block may have before its own blocks are looked for."""
_WORTH_IT = 1 / 256
"""Share of a module that a block must have."""

Block = tuple[nn.Module, ...]
"""Modules that are called one by one, in order; none contains another's parameters."""


def blocks_of(module: nn.Module) -> list[Block]:
    """Blocks in order of execution; none if it has no repeated ones.

    A transformer of this project has `blocks`, and may call `layers_ahead` of some before the first
    block. Of library modules it is the elements of their lists, and of lists in those.
    """
    whole = _size(module)
    own = getattr(module, "blocks", None)
    found = [*own] if isinstance(own, nn.ModuleList) else [*_elements(module, whole)]
    ahead = set(getattr(module, "layers_ahead", ()))
    blocks = []
    for block in found:
        first = tuple(each for each in block.modules() if each in ahead)
        blocks.append((*first, block))
    return blocks if len(blocks) > 1 else []


def _elements(module: nn.Module, whole: int) -> Iterator[nn.Module]:
    for child in module.children():
        if not isinstance(child, nn.ModuleList):
            yield from _elements(child, whole)
            continue
        for element in child:
            size = _size(element)
            inner = [*_elements(element, whole)] if size > _LARGEST * whole else []
            if inner:
                yield from inner
            elif size > _WORTH_IT * whole:
                yield element


def _size(module: nn.Module) -> int:
    tensors: dict[int, Tensor] = {id(each): each for each in module.parameters()}
    tensors |= {id(each): each for each in module.buffers()}
    return sum(each.numel() * each.element_size() for each in tensors.values())
