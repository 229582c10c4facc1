"""Columns of quantised weights, taken apart as tensor ranks do."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.layers.quantized.columns import cut_columns
from multimodal_gen.runtime.layers.quantized.storage import Storage


def check_columns(storage: Storage, exact: Tensor, block: int | None) -> None:
    """Take columns of a storage of `exact`, whose blocks have so many columns (None: all)."""
    columns = storage.columns
    assert storage.block == (columns if block is None else block)
    halves = (range(columns // 2), range(columns // 2, columns))
    for own in ([halves[0]], [halves[1]], [range(3, 5), range(columns - 7, columns)], []):
        (cut,), held = cut_columns([storage], own)
        index = torch.cat([torch.arange(each.start, each.stop) for each in held])
        assert {number for each in own for number in each} <= {*index.tolist()}
        assert block is None or len(index) <= sum(map(len, own)) + 2 * block * max(1, len(own))
        assert (cut.form, cut.rows, cut.columns) == (storage.form, storage.rows, len(index))
        wanted = storage.dequantized(torch.float32)[:, index]
        assert torch.equal(cut.dequantized(torch.float32), wanted)
        torch.testing.assert_close(wanted, exact[:, index], rtol=1e-5, atol=1e-5)
        some = torch.tensor([storage.rows - 1, 0])
        assert torch.equal(cut.numbers(some, torch.float32), wanted[some])
        x = torch.randn(3, len(index), generator=torch.Generator().manual_seed(0))
        found, product = cut.product(x), F.linear(x, wanted)
        assert (found - product).norm() < 0.02 * product.norm()  # inputs may be quantised
