"""Measures how fast GGUF's blocks are unpacked, beside the gguf package: one table, run in turn.

python -m multimodal_gen.benchmarks.gguf_unpacking --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from multimodal_gen.runtime.layers.quantized.gguf.blocks import FORMS
from multimodal_gen.runtime.layers.quantized.gguf.storage import GgufStorage

_WIDTH = 3072
_PIECE = 341
"""Rows that a product unpacks at a time."""
_ROUNDS = 15


def main() -> None:
    """Print millions of numbers a second for each type: the best of several rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("types", nargs="*", default=[*FORMS], help="by default all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"| type | gguf, 1 thread | torch, {args.threads} threads | ratio |\n|---|---|---|---|")
    for kind in args.types:
        theirs, ours = _seconds(kind)
        millions = _WIDTH * _WIDTH / 1e6
        print(f"| {kind} | {millions / theirs:.0f} | {millions / ours:.0f} | {theirs / ours:.1f} |")


def _seconds(kind: str) -> tuple[float, float]:
    quantisation = GGMLQuantizationType[kind]
    per_block, size = GGML_QUANT_SIZES[quantisation]
    shape = (_WIDTH, _WIDTH // per_block * size)
    blocks = np.random.default_rng(0).integers(0, 60, shape, np.uint8)
    weight = GgufStorage(kind, torch.from_numpy(blocks), _WIDTH)

    def ours() -> None:
        for start in range(0, _WIDTH, _PIECE):
            weight.numbers(slice(start, start + _PIECE), torch.float32)

    def theirs() -> None:
        with np.errstate(all="ignore"):
            dequantize(blocks, quantisation)

    rounds = [(_timed(theirs), _timed(ours)) for _ in range(_ROUNDS)]
    return min(each[0] for each in rounds), min(each[1] for each in rounds)


def _timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
