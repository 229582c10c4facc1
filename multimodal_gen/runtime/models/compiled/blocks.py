"""The repeated blocks of a denoiser, compiled by kind.

A kind of block is one graph for all of its layers, for all numbers of tokens and rows, and for all
LoRAs. There are further ones where arguments are of another kind: with LoRAs, or with texts of
unlike lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from multimodal_gen.runtime.models.compiled.example import Example

Backend = str | Callable[..., Any]
"""As of `torch.compile`."""
Forward = Callable[..., Any]
_LISTS = ("blocks", "refiners")
_MOST_GRAPHS = 16
"""Most graphs of a kind of block; what else would need one runs operation by operation."""


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer of this project, or those that a library calls repeated."""
    if names := getattr(module, "_repeated_blocks", None):
        return [each for each in module.modules() if type(each).__name__ in names]
    return [block for name in _LISTS for block in getattr(module, name, ())]


def example_of(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Example:
    """Example of a block's arguments."""
    return Example.of(args, kwargs, rotary_by_row=getattr(block, "rotary_by_row", False))


class CompiledBlocks:
    """Runs blocks by graphs, and makes these."""

    def __init__(self, blocks: Sequence[nn.Module], backend: Backend = "inductor") -> None:
        self.blocks = blocks
        self.backend = backend
        """Until the first use."""

    @cached_property
    def _compiled(self) -> Mapping[type[nn.Module], Forward]:
        options: dict[str, Any] = {"backend": self.backend, "dynamic": True, "fullgraph": True}
        kinds = {type(block) for block in self.blocks}
        return {kind: torch.compile(kind.forward, **options) for kind in kinds}

    @contextmanager
    def used(self) -> Iterator[None]:
        """Run the blocks by their graphs inside the context. Nothing is compiled: arguments without
        a graph are computed operation by operation."""
        calls = [partial(self._compiled[type(block)], block) for block in self.blocks]
        with torch.compiler.set_stance("eager_on_recompile"), in_place(self.blocks, calls):
            yield

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the graphs that blocks lack inside the context."""
        calls = [partial(self._made_first, block) for block in self.blocks]
        with in_place(self.blocks, calls), torch.compiler.set_stance("eager_on_recompile"):
            yield

    def make(self, block: nn.Module, example: Example) -> None:
        """Make the graph of the block for such arguments, unless there is one."""
        device = next(block.parameters()).device
        with _all_sizes(), torch.compiler.set_stance("default"):
            args, kwargs = example.arguments(device)
            self._compiled[type(block)](block, *args, **kwargs)

    def _made_first(self, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.make(block, example_of(block, args, kwargs))
        return self._compiled[type(block)](block, *args, **kwargs)


@contextmanager
def in_place(blocks: Sequence[nn.Module], forwards: Sequence[Forward]) -> Iterator[None]:
    """Call these in place of the blocks' `forward`, between their hooks."""
    for block, forward in zip(blocks, forwards, strict=True):
        block.__dict__["forward"] = forward
    try:
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


@contextmanager
def _all_sizes() -> Iterator[None]:
    """Trace sizes as what they are: none is a constant, and no two are equal by chance."""
    import torch._dynamo.config
    import torch.fx.experimental._config as shapes

    sizes = shapes.patch(  # type: ignore[attr-defined]
        backed_size_oblivious=True, use_duck_shape=False
    )
    with sizes, torch._dynamo.config.patch(recompile_limit=_MOST_GRAPHS):
        yield
