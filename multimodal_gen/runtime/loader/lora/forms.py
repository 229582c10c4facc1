"""Makes the term of one module of a LoRA file out of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.lora_forms import Decomposed, Hadamard, Kronecker
from multimodal_gen.runtime.layers.lora_terms import Difference, LowRank, Term
from multimodal_gen.runtime.loader.lora.pairs import Pair

Change = LowRank | Hadamard | Kronecker
_NORMS = ("norms", "dora_scale")


class Misfit(Exception):
    """The parts do not make up a term for the layer; says what they are."""


@dataclass(frozen=True)
class LayerShape:
    """Shape of the weight that a module of a file is for."""

    channels: int
    tail: tuple[int, ...]
    """Inputs, and the kernel of a convolution; of one group alone."""
    groups: int = 1

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.tail[1:]

    @property
    def points(self) -> list[int]:
        """A kernel of 1."""
        return [1] * len(self.kernel)

    def __str__(self) -> str:
        return str([self.channels, *self.tail])


def change_of(pair: Pair, shape: LayerShape) -> Term | None:
    """The term for the whole module, apart from differences of full size; None if there is none.

    Raises Misfit.
    """
    parts = {kind: part for kind, part in pair.parts.items() if kind not in ("weight", "bias")}
    if not parts:
        return None
    norms = {kind: parts.pop(kind) for kind in _NORMS if kind in parts}
    forms = {kind.partition(".")[0] for kind in parts}
    own = {kind.partition(".")[2]: part for kind, part in parts.items()}
    if not own:
        raise Misfit(f"{_listed(norms)} without low-rank weights")
    if len(forms) > 1:
        raise Misfit(f"parts of several forms: {_listed(parts)}")
    term: Term = _FORMS[forms.pop()](own, pair.scale, shape)
    if shape.groups > 1 and term.width == shape.tail[0]:
        term = Difference(term.dense(), term.bias, 0, pair.scale)
    return _decomposed(term, norms, shape) if norms else term


def difference_of(pair: Pair, shape: LayerShape) -> Difference | None:
    """The differences of full size; None if there are none. Raises Misfit."""
    weight, bias = pair.parts.get("weight"), pair.parts.get("bias")
    if weight is not None:
        weight = _reshaped(weight, shape.channels, *shape.tail)
        if weight is None:
            raise Misfit(f"difference {_shape(pair.parts['weight'])}, the model has {shape}")
    _check_bias(bias, shape)
    return None if weight is bias is None else Difference(weight, bias, 0)


def _low_rank(parts: Mapping[str, Tensor], scale: float, shape: LayerShape) -> LowRank:
    down, up, mid = parts.get("down"), parts.get("up"), parts.get("mid")
    if down is not None and up is not None and down.dim() > 1 and len(down):
        rank, inputs = len(down), shape.tail[0]
        if mid is not None:
            points = _reshaped(down, rank, inputs)
            down = None if points is None else _tucker(mid, points, shape)
        elif shape.groups > 1 and down[0].numel() == shape.groups * math.prod(shape.tail):
            up = _blocks(up, shape.groups, rank)  # of PEFT: ranks of one group each
            down = _reshaped(down, rank, shape.groups * inputs, *shape.kernel)
        else:
            down = _reshaped(down, rank, *shape.tail)
        up = None if up is None else _reshaped(up, shape.channels, rank, *shape.points)
        if down is not None and up is not None:
            _check_bias(parts.get("bias"), shape)
            return LowRank(down, up, parts.get("bias"), scale, 0)
    named = {name: parts.get(name) for name in ("down", "up")}
    raise Misfit(f"{_listed(named | dict(parts))}, the model has {shape}")


def _hadamard(parts: Mapping[str, Tensor], scale: float, shape: LayerShape) -> Hadamard:
    found = [
        factors
        for number in "12"
        if (factors := _factors(parts, f"w{number}", f"t{number}", shape)) is not None
    ]
    if len(found) < 2:
        named = {f"w{number}_{letter}": None for number in "12" for letter in "ab"}
        raise Misfit(f"hada {_listed(named | dict(parts))}, the model has {shape}")
    (down, up), (other_down, other_up) = found
    return Hadamard((down, other_down), (up, other_up), scale)


def _kronecker(parts: Mapping[str, Tensor], scale: float, shape: LayerShape) -> Kronecker:
    first = parts.get("w1")
    if first is None and "w1_a" in parts and "w1_b" in parts:
        first = _product(parts["w1_a"], parts["w1_b"])
    if first is not None and _divides(first, shape):
        inputs = shape.tail[0] // first.shape[1]
        second = _block(parts, LayerShape(shape.channels // len(first), (inputs, *shape.kernel)))
        if second is not None and not _is_double(parts):
            return Kronecker(first, second, scale)
    raise Misfit(f"lokr {_listed(parts)}, which do not make up {shape}")


def _divides(first: Tensor, shape: LayerShape) -> bool:
    if first.dim() != 2 or not first.numel():
        return False
    return not shape.channels % len(first) and not shape.tail[0] % first.shape[1]


def _is_double(parts: Mapping[str, Tensor]) -> bool:
    """True if a factor is there both whole and as a product."""
    return any(
        name in parts and parts.keys() & {f"{name}_a", f"{name}_b", core}
        for name, core in (("w1", ""), ("w2", "t2"))
    )


def _block(parts: Mapping[str, Tensor], shape: LayerShape) -> LowRank | Difference | None:
    """The block of a LoKr that is repeated."""
    if (whole := parts.get("w2")) is not None:
        whole = _reshaped(whole, shape.channels, *shape.tail)
        return None if whole is None else Difference(whole, None, 0)
    factors = _factors(parts, "w2", "t2", shape)
    return None if factors is None else LowRank(*factors, None, 1.0, 0)


def _factors(
    parts: Mapping[str, Tensor], name: str, core_name: str, shape: LayerShape
) -> tuple[Tensor, Tensor] | None:
    """down and up out of LyCORIS' matrices a and b, with a Tucker core or without."""
    a, b, core = parts.get(f"{name}_a"), parts.get(f"{name}_b"), parts.get(core_name)
    if a is None or b is None or a.dim() != 2 or b.dim() != 2 or not len(b):
        return None
    down = _reshaped(b, len(b), *shape.tail) if core is None else _tucker(core, b, shape)
    up = _reshaped(a if core is None else a.T, shape.channels, len(b), *shape.points)
    return None if down is None or up is None else (down, up)


def _decomposed(term: Term, norms: Mapping[str, Tensor], shape: LayerShape) -> Decomposed:
    if len(norms) > 1 or term.bias is not None:
        raise Misfit("norms are there twice" if len(norms) > 1 else "DoRA with a low-rank bias")
    ((kind, given),) = norms.items()
    magnitude = given.float().flatten()
    one_row = given.dim() > 1 and len(given) == 1 < max(shape.channels, len(magnitude))
    by_input = kind == "dora_scale" and one_row
    if len(magnitude) != (shape.tail[0] if by_input else shape.channels):
        raise Misfit(f"{kind} {_shape(given)}, the model has {shape}")
    if by_input and shape.groups > 1:
        raise Misfit(f"{kind} {_shape(given)}: norms of columns of a grouped convolution")
    return Decomposed(term, magnitude, by_input)


_FORMS: Mapping[str, Callable[[Mapping[str, Tensor], float, LayerShape], Change]] = {
    "lora": _low_rank,
    "hada": _hadamard,
    "lokr": _kronecker,
}


def _tucker(core: Tensor, points: Tensor, shape: LayerShape) -> Tensor | None:
    """Kernels [rank, inputs, ...] of a Tucker core [rank, r, ...] and a matrix [r, inputs]."""
    rank, inputs = points.shape
    if list(core.shape) != [rank, rank, *shape.kernel] or inputs != shape.tail[0]:
        return None
    return torch.einsum("ij...,jp->ip...", core, points)


def _blocks(up: Tensor, groups: int, rank: int) -> Tensor | None:
    """PEFT's matrix [channels, rank / groups] of a grouped convolution with zeros for the ranks
    of other groups: [channels, rank]."""
    if rank % groups or len(up) % groups or up.numel() * groups != len(up) * rank:
        return None
    each = up.reshape(groups, len(up) // groups, rank // groups)
    blocks: Tensor = torch.block_diag(*each)
    return blocks


def _product(a: Tensor, b: Tensor) -> Tensor | None:
    return a @ b if a.dim() == b.dim() == 2 and a.shape[1] == len(b) else None


def _reshaped(tensor: Tensor, *shape: int) -> Tensor | None:
    """With another number of dimensions: some files have matrices for kernels, and kernels of 1 for
    matrices. None if that isn't all."""
    fits = tensor.dim() > 1 or len(shape) == 1
    if len(tensor) != shape[0] or tensor.numel() != math.prod(shape) or not fits:
        return None
    return tensor.reshape(shape)


def _check_bias(bias: Tensor | None, shape: LayerShape) -> None:
    if bias is not None and list(bias.shape) != [shape.channels]:
        raise Misfit(f"bias {_shape(bias)}, the model has {shape}")


def _listed(parts: Mapping[str, Tensor | None]) -> str:
    return ", ".join(f"{kind} {_shape(part)}" for kind, part in parts.items())


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
