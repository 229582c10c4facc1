"""Forms of LoRAs by their papers' formulas: tensors of a file, and the weight that they stand for.

Independent of the package: whole weights, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Random = Callable[..., Tensor]


@dataclass(frozen=True)
class Form:
    """One module's part of a file."""

    keys: dict[str, Tensor]
    """By what follows the module's name."""
    changed: Callable[[float], Tensor]
    """The weight at a scale."""


def numbers(seed: int) -> Random:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def make(name: str, weight: Tensor, seed: int = 0, size: float = 0.5) -> Form:
    """Form `name` for a weight: `dora-` with norms of rows, `wide-dora-` with those of columns.

    `size` is that of the change, relative to the weight.
    """
    random, weight = numbers(seed), weight.double()
    kind = name.removeprefix("wide-").removeprefix("dora-")
    keys, change = _CHANGES[kind](weight, random)
    size = float(size * weight.std() / change.std())
    first = next(iter(keys))
    keys[first], change = keys[first] * size, change * size
    if kind == name:
        return _form(keys, lambda scale: weight + scale * change)
    dims = [d for d in range(weight.dim()) if d != (1 if name.startswith("wide") else 0)]
    magnitude = norms(weight, dims) * (1 + 0.3 * random(1).abs())
    magnitude = magnitude * (1 + 0.1 * random(*magnitude.shape))

    def decomposed(scale: float) -> Tensor:
        direction = weight + scale * change
        return magnitude * direction / norms(direction, dims)

    return _form({**keys, "dora_scale": magnitude}, decomposed)


def norms(weight: Tensor, dims: list[int]) -> Tensor:
    return weight.square().sum(dims, keepdim=True).sqrt()


def _form(keys: dict[str, Tensor], changed: Callable[[float], Tensor]) -> Form:
    return Form({key: tensor.float().contiguous() for key, tensor in keys.items()}, changed)


Change = tuple[dict[str, Tensor], Tensor]


def _lora(weight: Tensor, random: Random) -> Change:
    out, *into = weight.shape
    down, up = random(4, *into), random(out, 4, *[1] * (len(into) - 1))
    change = (up.flatten(1) @ down.flatten(1)).view_as(weight)
    keys = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)}
    return keys, change / 2


def _without_alpha(weight: Tensor, random: Random) -> Change:
    keys, change = _lora(weight, random)
    return {key: tensor for key, tensor in keys.items() if key != "alpha"}, change * 2


def _tucker(weight: Tensor, random: Random) -> Change:
    out, into, *kernel = weight.shape
    points = [1] * len(kernel)
    down, mid, up = random(3, into, *points), random(3, 3, *kernel), random(out, 3, *points)
    flat = torch.einsum("oi,ij...,jp->op...", up.flatten(1), mid, down.flatten(1))
    keys = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    return keys, flat.view_as(weight)


def _loha(weight: Tensor, random: Random) -> Change:
    out, width = len(weight), weight[0].numel()
    parts = {f"hada_w{n}_{ab}": random(*((out, 2) if ab == "a" else (2, width)))
             for n in "12" for ab in "ab"}  # fmt: skip
    first = parts["hada_w1_a"] @ parts["hada_w1_b"]
    second = parts["hada_w2_a"] @ parts["hada_w2_b"]
    return {**parts, "alpha": torch.tensor(1.0)}, (first * second).view_as(weight) / 2


def _loha_tucker(weight: Tensor, random: Random) -> Change:
    out, into, *kernel = weight.shape
    parts: dict[str, Tensor] = {}
    change = torch.ones_like(weight)
    for n in "12":
        core, a, b = random(2, 2, *kernel), random(2, out), random(2, into)
        parts |= {f"hada_t{n}": core, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        change = change * torch.einsum("ij...,io,jp->op...", core, a, b).view_as(weight)
    return parts, change


def _factors(number: int) -> tuple[int, int]:
    small = max(n for n in range(1, math.isqrt(number) + 1) if number % n == 0)
    return small, number // small


def _kron(first: Tensor, second: Tensor) -> Tensor:
    return torch.kron(first.reshape(*first.shape, *[1] * (second.dim() - 2)), second.contiguous())


def _lokr(weight: Tensor, random: Random) -> Change:
    (a, c), (b, d) = _factors(weight.shape[0]), _factors(weight.shape[1])
    first, second = random(a, b), random(c, d, *weight.shape[2:])
    keys = {"lokr_w1": first, "lokr_w2": second, "alpha": torch.tensor(7.0)}  # of no effect
    return keys, _kron(first, second)


def _lokr_low(weight: Tensor, random: Random) -> Change:
    (a, c), (b, d) = _factors(weight.shape[0]), _factors(weight.shape[1])
    kernel = weight.shape[2:]
    keys = {
        "lokr_w1_a": random(a, 2),
        "lokr_w1_b": random(2, b),
        "lokr_w2_a": random(c, 2),
        "lokr_w2_b": random(2, d * math.prod(kernel)),
    }
    first = keys["lokr_w1_a"] @ keys["lokr_w1_b"]
    second = (keys["lokr_w2_a"] @ keys["lokr_w2_b"]).view(c, d, *kernel)
    return {**keys, "alpha": torch.tensor(1.0)}, _kron(first, second) / 2


def _lokr_tucker(weight: Tensor, random: Random) -> Change:
    (a, c), (b, d) = _factors(weight.shape[0]), _factors(weight.shape[1])
    first, core = random(a, b), random(2, 2, *weight.shape[2:])
    outer, inner = random(2, c), random(2, d)
    second = torch.einsum("ij...,io,jp->op...", core, outer, inner)
    keys = {"lokr_w1": first, "lokr_t2": core, "lokr_w2_a": outer, "lokr_w2_b": inner}
    return keys, _kron(first, second)


def _diff(weight: Tensor, random: Random) -> Change:
    change = random(*weight.shape)
    return {"diff": change}, change


_CHANGES: dict[str, Callable[[Tensor, Random], Change]] = {
    "lora": _lora,
    "lora-without-alpha": _without_alpha,
    "tucker": _tucker,
    "loha": _loha,
    "loha-tucker": _loha_tucker,
    "lokr": _lokr,
    "lokr-low": _lokr_low,
    "lokr-tucker": _lokr_tucker,
    "diff": _diff,
}
LINEAR = (
    "lora", "lora-without-alpha", "loha", "lokr", "lokr-low", "diff",
    "dora-lora", "dora-loha", "dora-lokr-low", "wide-dora-lora", "wide-dora-lokr",
)  # fmt: skip
CONVOLUTION = (*LINEAR, "tucker", "loha-tucker", "lokr-tucker", "dora-tucker")
