"""Runs the fused kernels in Triton's interpreter, on a CPU, and prints by how much they differ from
torch's operations: as JSON, for tests to read.

`TRITON_INTERPRET=1 python tests/helpers/fused_kernels.py`
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.layers.fused import choice, kernels
from multimodal_gen.runtime.layers.modulation import gated_add, gated_add_and_norm
from multimodal_gen.runtime.layers.norm import HeadNorms, QKNorm
from multimodal_gen.runtime.layers.rope import apply_rotary

DTYPES = (torch.float32, torch.bfloat16)
NORMS = [(1, 5, 48), (2, 3, 3072), (2, 0, 64)]
HEADS = {
    "FLUX": (24, 128, 2, 1, False),
    "Z-Image": (30, 128, 1, 2, False),
    "Stable Diffusion 3": (38, 64, 2, 0, False),
    "Wan": (12, 128, 1, 1, True),
    "odd": (3, 24, 1, 1, False),
}
"""Heads, their width, streams, rotary tables (of none, all or each row), norm across heads."""


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norms(shape: tuple[int, ...], centred: bool, dtype: torch.dtype) -> Iterator[float]:
    rows, count, width = shape
    x = numbers(rows, count + 2, width, dtype=dtype)[:, 2:]  # a part of a longer sequence
    update, gate = numbers(*shape, seed=1, dtype=dtype), numbers(rows, 1, width, seed=2)
    scale, shift = numbers(1, 1, width, seed=3), numbers(rows, 1, width, seed=4)

    def exact(values: Tensor) -> Tensor:
        norm = F.layer_norm if centred else F.rms_norm
        return norm(values.float(), (width,), eps=1e-6) * scale

    alone = kernels.norm(x, scale, None, 1e-6, centred=centred)
    yield difference(alone, exact(x), dtype)
    total, normed = kernels.add_norm(x, gate, update, scale, shift, 1e-6, centred=centred)
    yield difference(total, gated_add(x, gate, update), dtype)
    yield difference(normed, exact(total) + shift, dtype)


def heads(
    count: int, width: int, streams: int, tables: int, across: bool, dtype: torch.dtype
) -> float:
    qkv = numbers(2, 5, 3, count, width, dtype=dtype)
    own = [QKNorm(count * width if across else width) for _ in range(streams)]
    for seed, norm in enumerate(own):
        weight = numbers(len(norm.weight), seed=seed)
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
    together = HeadNorms(own, (2, 3) if streams == 2 else (5,), 1e-6, across=across)
    angles = numbers(*((2,) if tables == 2 else ()), 5, width // 2, seed=9)
    table = torch.stack((angles.cos(), angles.sin()), dim=-1) if tables else None
    expected = together(qkv[:, :, :2].float())
    found = together.fused(qkv[:, :, :2], table)
    assert found is not None
    return difference(found, expected if table is None else apply_rotary(expected, table), dtype)


def difference(found: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    """Largest one, relative to numbers beyond 1."""
    assert found.dtype == dtype, found.dtype
    gap = (found.float() - expected.float()).abs() / expected.float().abs().clamp(min=1)
    return float(gap.max()) if gap.numel() else 0.0


def main() -> None:
    choice.check(kernels, torch.device("cpu"))
    gaps: dict[str, dict[str, float]] = {}
    for dtype in DTYPES:
        own = gaps[str(dtype)] = {}
        for shape in NORMS:
            for centred in (True, False):
                own[f"norm {shape} {centred}"] = max(norms(shape, centred, dtype))
        for name, sizes in HEADS.items():
            with mock.patch.object(choice, "kernels_for", return_value=kernels):
                own[name] = heads(*sizes, dtype)
    x, update, *vectors = (numbers(2, n, 8, seed=n) for n in (3, 3, 1, 1, 1))
    plain = gated_add_and_norm(x, vectors[0], update, *vectors[1:])
    with mock.patch.object(choice, "kernels_for", return_value=kernels):
        fused = gated_add_and_norm(x, vectors[0], update, *vectors[1:])
    both = [difference(a, b, torch.float32) for a, b in zip(fused, plain, strict=True)]
    gaps["torch.float32"]["gated_add_and_norm"] = max(both)
    print(json.dumps(gaps))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
