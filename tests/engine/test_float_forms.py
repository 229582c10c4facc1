"""float8, MXFP8 and NVFP4: what is kept of a file, and what its products are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from quantized_weights import Parts, float8, mxfp8, note, nvfp4
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.tensors.stored import Quantized

ROWS, COLUMNS = 300, 288
BIG = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def plain(weight: Tensor, dtype: torch.dtype) -> Parts:
    numbers = weight.to(dtype)
    return Parts({"weight": numbers}, numbers.float())


def noted(parts: Parts, form: str, **settings: object) -> Parts:
    return Parts(parts.tensors | note(form, **settings), parts.exact)


def shaped(parts: Parts, *shape: int) -> Parts:
    scale = parts.tensors["weight_scale"].reshape(shape)
    return Parts(parts.tensors | {"weight_scale": scale}, parts.exact)


def in_bytes(parts: Parts) -> Parts:
    return Parts(
        {name: each.view(torch.uint8) if each.itemsize == 1 else each
         for name, each in parts.tensors.items()},
        parts.exact,
    )  # fmt: skip


FORMS: dict[str, tuple[str, Callable[[Tensor], Parts]]] = {
    "e4m3": ("float8_e4m3fn", lambda w: plain(w, E4M3)),
    "e5m2": ("float8_e5m2", lambda w: plain(w, E5M2)),
    "one scale": ("float8_e4m3fn", float8),
    "one scale, older": ("float8_e4m3fn", partial(float8, name="scale_weight")),
    "one scale, e5m2": ("float8_e5m2", partial(float8, dtype=E5M2)),
    "noted": ("float8_e4m3fn", lambda w: noted(float8(w), "float8_e4m3fn")),
    "in bytes": ("float8_e4m3fn", lambda w: noted(in_bytes(float8(w)), "float8_e4m3fn")),
    "by row": ("float8_e4m3fn", lambda w: float8(w, (1, COLUMNS))),
    "by row, flat": ("float8_e4m3fn", lambda w: shaped(float8(w, (1, COLUMNS)), ROWS)),
    "by row, noted": (
        "float8_e4m3fn",
        lambda w: noted(float8(w, (1, COLUMNS)), "float8_e4m3fn_rowwise"),
    ),
    "128 x 128": ("float8_e4m3fn", lambda w: float8(w, (128, 128), name="weight_scale_inv")),
    "128 x 1 x 128 x 1": ("float8_e4m3fn", lambda w: shaped(float8(w, (128, 128)), 3, 1, 3, 1)),
    "60 x 72": ("float8_e4m3fn", lambda w: float8(w, (60, 72))),
    "64 x 64, noted": (
        "float8_e4m3fn",
        lambda w: noted(float8(w, (64, 64)), "float8_e4m3fn_blockwise", group_size=64),
    ),
    "1 x 32": ("float8_e4m3fn", lambda w: shaped(float8(w, (1, 32)), ROWS, 9, 1)),
    "mxfp8": ("mxfp8", lambda w: noted(mxfp8(w), "mxfp8")),
    "mxfp8 in rows": ("mxfp8", lambda w: mxfp8(w, tiles=False)),
    "hybrid mxfp8": ("mxfp8", lambda w: noted(mxfp8(w), "hybrid_mxfp8")),
    "nvfp4": ("nvfp4", nvfp4),
    "nvfp4, noted": ("nvfp4", lambda w: noted(in_bytes(nvfp4(w)), "nvfp4")),
}


def written(folder: Path, tensors: dict[str, Tensor], **options: dict[str, str]) -> Path:
    path = folder / "weights.safetensors"
    save_file({name: each.contiguous() for name, each in tensors.items()}, path, **options)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_what_is_kept_gives_the_products_of_the_numbers_it_stands_for(
    name: str, tmp_path: Path
) -> None:
    form, make = FORMS[name]
    tensors, exact = make(BIG)
    path = written(tmp_path, {f"layer.{part}": each for part, each in tensors.items()})
    x = torch.randn(2, 5, COLUMNS)
    with open_weights([path], "transformer") as stored:
        assert stored.keys() == {"layer.weight"}
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        assert (weight.dtype, weight.shape) == (form, (ROWS, COLUMNS))
        torch.testing.assert_close(weight.rows(7, 290), exact[7:290], rtol=1e-6, atol=0)
        for start, stop in ((0, ROWS), (128, 256), (77, 131), (299, ROWS)):
            kept = weight.keep(start, stop)
            assert (kept.form, kept.rows, kept.columns) == (form, stop - start, COLUMNS)
            torch.testing.assert_close(
                kept.product(x), F.linear(x, exact[start:stop]), rtol=1e-5, atol=1e-5
            )
            index = torch.tensor([stop - start - 1, 0])
            numbers = kept.numbers(index, torch.float32)
            torch.testing.assert_close(numbers, exact[start:stop][index], rtol=1e-6, atol=0)
