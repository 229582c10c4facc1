"""Weights of 8-bit integers: what is kept of a file, and what its products are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from integer_weights import bitsandbytes_int8, int8, int8_blocks, int8_noted, int8_rotated
from quantized_weights import Parts, note
from safetensors.torch import save_file
from taken_apart import check_columns
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.quantized import int8 as int8_storage
from multimodal_gen.runtime.layers.quantized import int8_product as products
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.int8_product import int8_product, quantized_rows
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.tensors.stored import Quantized, Stored

ROWS, COLUMNS = 96, 768
WEIGHT = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
X = torch.randn(2, 5, COLUMNS, generator=torch.Generator().manual_seed(1))

FORMS: dict[str, tuple[str, Callable[[Tensor], Parts]]] = {
    "by row": ("int8", int8),
    "one scale": ("int8", partial(int8, of="matrix")),
    "older name": ("int8", partial(int8, name="scale_weight")),
    "noted": ("int8", int8_noted),
    "noted, one scale": ("int8", partial(int8_noted, of="matrix")),
    "ConvRot 256": ("int8-ConvRot", partial(int8_rotated, group=256)),
    "ConvRot 64": ("int8-ConvRot", partial(int8_rotated, group=64)),
    "ConvRot 16, nested note": ("int8-ConvRot", partial(int8_rotated, group=16, nested=True)),
    "blocks": ("int8_blockwise", partial(int8_blocks, size=32)),
    "bitsandbytes": ("int8", bitsandbytes_int8),
}
EXACT_INPUTS = ("blocks", "bitsandbytes")


@contextmanager
def opened(folder: Path, tensors: dict[str, Tensor]) -> Iterator[dict[str, Stored]]:
    """A file with one layer."""
    path = folder / "weights.safetensors"
    save_file({f"layer.{part}": each.contiguous() for part, each in tensors.items()}, path)
    with open_weights([path], "transformer") as stored:
        yield stored


@contextmanager
def kept(name: str, folder: Path) -> Iterator[tuple[Quantized, Tensor]]:
    tensors, exact = FORMS[name][1](WEIGHT)
    with opened(folder, tensors) as stored:
        assert stored.keys() == {"layer.weight"}
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        yield weight, exact


@pytest.mark.parametrize("name", FORMS)
def test_what_is_kept_stands_for_the_numbers_of_the_file(name: str, tmp_path: Path) -> None:
    with kept(name, tmp_path) as (weight, exact):
        assert (weight.dtype, weight.shape) == (FORMS[name][0], (ROWS, COLUMNS))
        storage = weight.keep(8, 72)
        assert storage.form == weight.dtype
        close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
        close(weight.rows(8, 72), exact[8:72])
        close(storage.dequantized(torch.float32), exact[8:72])
        close(storage.numbers(torch.tensor([63, 0]), torch.float32), exact[[71, 8]])


BLOCKS = {"ConvRot 256": 256, "ConvRot 64": 64, "blocks": 32}


@pytest.mark.parametrize("name", FORMS)
def test_columns_are_taken_apart_where_blocks_end(name: str, tmp_path: Path) -> None:
    with kept(name, tmp_path) as (weight, exact):
        check_columns(weight.keep(8, 72), exact[8:72], BLOCKS.get(name, 16))


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 1, 1, 1), (1,)])
def test_a_convolution_has_scales_of_any_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    numbers = torch.arange(8 * 36).remainder(120).to(torch.int8).view(8, 4, 3, 3)
    scales = torch.rand(shape) + 0.1
    tensors = {"weight": numbers, "weight_scale": scales, **note("int8_tensorwise")}
    with opened(tmp_path, tensors) as stored:
        found = stored["layer.weight"].rows(2, 7)
    assert torch.equal(found, (numbers * scales.view(-1, 1, 1, 1))[2:7])


@pytest.mark.parametrize("name", FORMS)
def test_without_integer_products_it_is_the_product_of_those_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_storage, "has_int8_product", lambda values: False)
    with kept(name, tmp_path) as (weight, exact):
        product = weight.keep(0, ROWS).product(X)
    torch.testing.assert_close(product, F.linear(X, exact), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_with_them_it_is_that_of_inputs_that_are_quantised_row_by_row(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_storage, "has_int8_product", lambda values: True)
    with kept(name, tmp_path) as (weight, exact):
        product = weight.keep(0, ROWS).product(X)
    wanted = F.linear(X, exact)
    error = ((product - wanted).norm() / wanted.norm()).item()
    if name in EXACT_INPUTS:
        assert error < 1e-6
    else:
        assert 1e-4 < error < 0.01


@pytest.mark.parametrize("scale", [(ROWS, 1), (1, 1)])
@pytest.mark.parametrize("piece", [64, 1 << 22])
def test_the_integer_product_is_exact(
    scale: tuple[int, int], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(products._PIECE, "cpu", piece)
    values = torch.randint(-127, 128, (ROWS, COLUMNS), dtype=torch.int8)
    scales = torch.rand(scale) + 0.1
    x = torch.randn(2, 40, COLUMNS)
    integers, factors = quantized_rows(x)
    wanted = F.linear(integers.double() * factors, values.double() * scales)
    torch.testing.assert_close(
        int8_product(x, values, scales), wanted.float(), rtol=1e-6, atol=1e-9
    )


def test_a_token_has_the_same_product_whatever_it_is_batched_with() -> None:
    values, scales = quantized_rows(WEIGHT)
    whole = int8_product(X, values, scales)
    assert torch.equal(int8_product(X[1:, 3:], values, scales), whole[1:, 3:])


@pytest.mark.parametrize("tokens", [1, 63, 65, 129, 2497, 4097])
def test_no_piece_of_a_product_is_too_small_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    sizes: list[int] = []
    multiply = torch._int_mm

    def noted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        sizes.append(len(a))
        return multiply(a, b)

    monkeypatch.setattr(products, "_PIECE", {"cpu": 1})
    monkeypatch.setattr(torch, "_int_mm", noted)
    x = torch.randn(tokens, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(8, 16, dtype=torch.int8)
    product = int8_product(x, weight, torch.ones(1, 1))
    torch.testing.assert_close(product, x.sum(1, keepdim=True).expand(-1, 8), atol=0.2, rtol=0.05)
    assert sum(sizes) == tokens
    assert len(sizes) == 1 or min(sizes) > 16


def test_inputs_that_are_not_finite_give_no_finite_product() -> None:
    x = X.clone()
    x[0, 0, 0], x[1, 1, 1] = torch.nan, torch.inf
    storage = Int8Storage(*quantized_rows(WEIGHT), quantizes_inputs=True)
    finite = storage.product(x).isfinite().any(-1)
    assert finite.logical_not().nonzero().tolist() == [[0, 0], [1, 1]]


def test_its_integers_are_the_files_own_pages(tmp_path: Path) -> None:
    with kept("ConvRot 256", tmp_path) as (weight, _):
        one, other = weight.keep(0, ROWS), weight.keep(0, ROWS)
    held = [dict(each.named_buffers())["rotated.values"] for each in (one, other)]
    assert held[0].data_ptr() == held[1].data_ptr()
    own = sum(each.nbytes for name, each in one.named_buffers() if name != "rotated.values")
    assert own <= 4 * ROWS + 2 * 4 * 16 * 16


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"weight_scale": torch.ones(7, 1)}, r"layer\.weight_scale: F32 \[7, 1\] must be one"),
        ({"weight_scale": torch.full((), -1.0)}, r"layer\.weight_scale: a scale of -1\.0 must be"),
        ({"weight_scale": torch.full((), torch.nan)}, r"layer\.weight_scale: a scale of nan"),
        ({"weight_scale": torch.ones(1).byte()}, r"layer\.weight_scale: U8 must be floating"),
        ({"weight": WEIGHT}, r"layer\.weight: F32 \[96, 768\] must be I8 \(int8\)"),
        (note("int8_tensorwise", convrot=True, convrot_groupsize=0), "convrot_groupsize=0 must"),
        (note("int8_tensorwise", convrot=True, convrot_groupsize=1024), "one of .4, 16, 64, 256."),
        (note("int8_tensorwise", convrot=True, convrot_groupsize="x"), "convrot_groupsize='x'"),
        (note("int8_blockwise", group_size=0), r"layer\.weight_scale: .*for each 0 rows"),
        (note("int8_blockwise", group_size=[1]), r"layer\.weight_scale: .*for each \[1\] rows"),
        (note("int3_tensorwise"), r"layer.*form 'int3_tensorwise' is not supported"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tensors: dict[str, Tensor], reason: str, tmp_path: Path
) -> None:
    parts = int8_noted(WEIGHT).tensors | tensors
    with pytest.raises(InvalidCheckpoint, match=reason), opened(tmp_path, parts):
        pass


def test_a_weight_without_its_scale_is_refused_by_name(tmp_path: Path) -> None:
    parts = int8_noted(WEIGHT).tensors
    del parts["weight_scale"]
    missing = pytest.raises(InvalidCheckpoint, match=r"layer\.weight_scale: is missing \(int8\)")
    with missing, opened(tmp_path, parts):
        pass
