"""Compiles graphs into the cache on disk: `python -m multimodal_gen.runtime.compiling`, with its
arguments on stdin.

It has the geometry of the blocks, and none of the weights. It ends when its parent does.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path

import msgspec

from multimodal_gen.runtime.models.compiled.graph import BlockGraph

DONE = "compiled"
"""All that is said on stdout, unless something fails."""
_NICENESS = 10
"""A tenth of a core that others want all of."""


class CompileArgs(msgspec.Struct, frozen=True, kw_only=True):
    model_folder: str
    model_file: str | None
    component_files: dict[str, str]
    device: str
    attention_backend: str
    threads: int
    """Of the engine: code for a CPU holds for a number of them."""
    graphs: tuple[BlockGraph, ...]


def main() -> None:
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    args = msgspec.msgpack.decode(sys.stdin.buffer.read(size), type=CompileArgs)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)
    try:
        _compile(args)
    except Exception as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
        os._exit(1)
    print(DONE, flush=True)
    os._exit(0)


def _compile(args: CompileArgs) -> None:
    import torch
    from torch import nn

    from multimodal_gen.configs.families import family_named
    from multimodal_gen.runtime.distributed.mesh import Mesh
    from multimodal_gen.runtime.distributed.rank_context import RankContext
    from multimodal_gen.runtime.loader.checkpoint import Checkpoint
    from multimodal_gen.runtime.models.compiled.blocks import CompiledBlocks, repeated_blocks
    from multimodal_gen.runtime.models.compiled.graph import materialise

    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    files = {name: Path(file) for name, file in args.component_files.items()}
    file = None if args.model_file is None else Path(args.model_file)
    checkpoint = Checkpoint.open(Path(args.model_folder), file, files)
    family = family_named(checkpoint.pipeline_class, checkpoint.index)
    kind = importlib.import_module(f"multimodal_gen.runtime.pipelines.{family.module}").PIPELINE
    native = kind.variant(checkpoint).native
    context = RankContext(device, torch.float32, Mesh(), args.attention_backend)
    outlines: dict[str, nn.Module] = {}
    for graph in args.graphs:
        if graph.component not in outlines:
            outlines[graph.component] = native.outline(checkpoint, graph.component, context)
        block = repeated_blocks(outlines[graph.component])[graph.block]
        materialise(block, graph.parameters, device)
        with torch.inference_mode():
            CompiledBlocks([block]).make(block, graph.example)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
