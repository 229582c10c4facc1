"""Products of matrices in the dtypes and forms that operators can choose."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure, median
from multimodal_gen.runtime.layers.products.dense import dense_product
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.int8_product import quantized_rows

_TOKENS, _WIDTH = 1024, 3072
_OPTIONS = {"bfloat16": "--dtype bfloat16", "int8": "--quantization int8"}


def product_figures(repeats: int, scale: Scale) -> list[Figure]:
    """Times of products with other options, relative to float32. They take turns."""
    tokens, width = (_TOKENS, _WIDTH) if scale == "full" else (8, 64)
    x, weight = torch.randn(tokens, width), torch.randn(width, width)
    int8 = Int8Storage(*quantized_rows(weight), quantizes_inputs=True)
    x16, weight16 = x.bfloat16(), weight.bfloat16()
    calls: dict[str, Callable[[], object]] = {
        "float32": lambda: dense_product(x, weight),
        "bfloat16": lambda: dense_product(x16, weight16),
        "int8": lambda: int8.product(x),
    }
    rounds = [{name: _seconds(call) for name, call in calls.items()} for _ in range(repeats + 1)]
    timed = rounds[1:]  # the first one warms up
    what = f"time of products of {tokens} tokens and width {width} with"
    return [
        median(
            f"options/{name}",
            f"{what} {option}, relative to float32 on this CPU",
            [each[name] / each["float32"] for each in timed],
            "x",
        )
        for name, option in _OPTIONS.items()
    ]


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
