"""Weights of linear layers that keep the form in which a file has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.products.dense import dense_product

_PIECE = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Numbers of a weight that exist at once: what fits a cache, or keeps a device busy."""
_LEAST_ROWS = 128
"""Rows of a piece below which a product is slower."""


class Storage(nn.Module, ABC):
    """Rows of a weight [rows, columns] in one form.

    Its tensors are buffers, so that they move with the module; on a CPU they may be pages of the
    file.
    """

    form: str
    """Name of the form, as users read it: Q4_K, int8, nvfp4 …"""
    rows: int
    columns: int

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows = rows
        self.columns = columns

    @abstractmethod
    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers [n, columns] of a range of rows, or of the rows that `rows` [n] lists."""

    @property
    def block(self) -> int:
        """Columns that can't be taken apart: by default all."""
        return self.columns

    def cut(self, columns: Sequence[range]) -> Storage:
        """Only these columns, which are whole blocks, side by side."""
        return self

    @property
    def unpacks(self) -> bool:
        """True if products unpack the numbers on its device, which has no kernel for the form."""
        return True

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """All numbers, [rows, columns]."""
        return self.numbers(slice(0, self.rows), dtype)

    def product(self, x: Tensor) -> Tensor:
        """x Wᵀ: [..., columns] -> [..., rows]. Only a piece of W exists at a time."""
        step = max(_LEAST_ROWS, _PIECE.get(x.device.type, _PIECE["cpu"]) // self.columns)
        if step >= self.rows:
            return dense_product(x, self.dequantized(x.dtype))
        flat = x.reshape(-1, self.columns)
        output = flat.new_empty(len(flat), self.rows)
        for start in range(0, self.rows, step):
            stop = min(start + step, self.rows)
            piece = self.numbers(slice(start, stop), x.dtype)
            torch.mm(flat, piece.T, out=output[:, start:stop])
        return output.view(*x.shape[:-1], self.rows)


def picked(numbers: Tensor, columns: Sequence[range], width: int = 1) -> Tensor:
    """Columns of a matrix whose numbers stand for `width` columns of the weight each."""
    return torch.cat(
        [numbers[:, each.start // width : -(-each.stop // width)] for each in columns], dim=1
    )


class PlainStorage(Storage):
    """Floating-point numbers, which are cast when they are used."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__(*values.shape)
        self.register_buffer("values", values)
        self.form = str(values.dtype).removeprefix("torch.")

    block = 1

    def cut(self, columns: Sequence[range]) -> Storage:
        return PlainStorage(picked(self.values, columns))

    @property
    def unpacks(self) -> bool:
        return False

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        return self.values[rows].to(dtype)


class KeptWeight(nn.Module):
    """A weight [rows, columns] as one or more storages, one below the other."""

    def __init__(self, storages: Sequence[Storage], dtype: torch.dtype) -> None:
        """`dtype` is that of the layer's inputs and outputs."""
        super().__init__()
        self.storages = nn.ModuleList(storages)
        self.dtype = dtype

    @property
    def _each(self) -> list[Storage]:
        return [*self.storages]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((sum(each.rows for each in self._each), self._each[0].columns))

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms of its storages, in order."""
        return tuple(each.form for each in self._each)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x Wᵀ + b: [..., columns] -> [..., rows]."""
        outputs = [each.product(x) for each in self._each]
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
        return output if bias is None else output.add_(bias)

    def rows(self, index: Tensor) -> Tensor:
        """The numbers of single rows: index [...] -> [..., columns]."""
        flat = index.reshape(-1)
        if len(self._each) == 1:
            return self._each[0].numbers(flat, self.dtype).view(*index.shape, -1)
        found = torch.empty(len(flat), self.shape[1], dtype=self.dtype, device=index.device)
        start = 0
        for each in self._each:
            here = ((flat >= start) & (flat < start + each.rows)).nonzero().squeeze(1)
            found[here] = each.numbers(flat[here] - start, self.dtype)
            start += each.rows
        return found.view(*index.shape, -1)


def count_numbers(module: nn.Module) -> int:
    """Numbers of all weights of a module, whatever form they are kept in."""
    kept = (part for part in module.modules() if isinstance(part, KeptWeight))
    plain = sum(parameter.numel() for parameter in module.parameters())
    return plain + sum(each.shape.numel() for each in kept)
