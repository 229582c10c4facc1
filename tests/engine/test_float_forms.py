"""float8, MXFP8 and NVFP4: what is kept of a file, and what its products are."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from quantized_weights import Parts, float8, metadata, mxfp8, note, nvfp4, written
from taken_apart import check_columns
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.checkpoints.quantization_config import quantization_settings
from multimodal_gen.runtime.layers.quantized import scaled
from multimodal_gen.runtime.layers.quantized.float8_product import float8_product
from multimodal_gen.runtime.layers.quantized.storage import Storage
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
    "by column": ("float8_e4m3fn", lambda w: float8(w, (ROWS, 1))),
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


BLOCKS = {
    "128 x 128": 128,
    "128 x 1 x 128 x 1": 128,
    "by column": 1,
    "60 x 72": 72,
    "64 x 64, noted": 64,
    "1 x 32": 32,
    "mxfp8": 32,
    "mxfp8 in rows": 32,
    "hybrid mxfp8": 32,
    "nvfp4": 16,
    "nvfp4, noted": 16,
}


@pytest.mark.parametrize("name", FORMS)
def test_columns_are_taken_apart_where_blocks_end(name: str, tmp_path: Path) -> None:
    tensors, exact = FORMS[name][1](BIG)
    path = written(tmp_path, {f"layer.{part}": each for part, each in tensors.items()})
    with open_weights([path], "transformer") as stored:
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        check_columns(weight.keep(7, 200), exact[7:200], BLOCKS.get(name, 1))


@pytest.mark.parametrize("block", [None, (1, COLUMNS)])
def test_the_product_of_rounded_inputs_is_close(block: tuple[int, int] | None) -> None:
    weight = BIG[: ROWS - ROWS % 16]
    tensors, exact = float8(weight, block)
    scales = tensors["weight_scale"].expand(len(weight), 1)
    x = torch.randn(2, 5, COLUMNS) * torch.tensor([1e-3, 1, 40, 1e4, 0])[:, None]
    found = float8_product(x.bfloat16(), tensors["weight"], scales)
    wanted = F.linear(x, exact)
    errors = (found.float() - wanted).norm(dim=-1) / wanted.norm(dim=-1).clamp(min=1e-9)
    assert found.dtype == torch.bfloat16
    assert errors.max() < 0.05


def kept(parts: Parts, folder: Path, **settings: object) -> Storage:
    noted = parts.tensors | note("float8_e4m3fn", **settings)
    path = written(folder, {f"layer.{part}": each for part, each in noted.items()})
    with open_weights([path], "transformer") as stored:
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        return weight.keep(0, weight.shape[0])


@pytest.mark.parametrize(
    ("parts", "settings", "multiplied"),
    [
        (float8(BIG), {}, True),
        (float8(BIG, (1, COLUMNS)), {}, True),
        (float8(BIG, (128, 128)), {}, False),
        (float8(BIG), {"full_precision_matrix_mult": True}, False),
        (plain(BIG, E4M3), {}, False),
    ],
)
def test_inputs_are_rounded_where_the_file_is_made_for_it_and_the_device_can(
    parts: Parts,
    settings: dict[str, object],
    multiplied: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = kept(parts, tmp_path, **settings)
    x = torch.randn(3, COLUMNS)
    unpacked = storage.product(x.bfloat16())
    assert storage.unpacks
    monkeypatch.setattr(scaled, "has_float8_product", lambda values: True)
    assert storage.unpacks != multiplied
    assert torch.equal(storage.product(x), F.linear(x, storage.dequantized(torch.float32)))
    product = storage.product(x.bfloat16())
    assert torch.equal(product, unpacked) != multiplied
    assert (product - unpacked).norm() < 0.05 * unpacked.norm()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("named", ["", "model.diffusion_model."])
def test_metadata_names_layers_with_the_files_prefix_or_without(
    prefix: str, named: str, tmp_path: Path
) -> None:
    tensors = {f"{prefix}layer.{part}": each for part, each in in_bytes(nvfp4(BIG)).tensors.items()}
    path = written(tmp_path, tensors, metadata=metadata({f"{named}layer": "nvfp4"}))
    with open_weights([path], "transformer") as stored:
        assert stored.keys() == {f"{prefix}layer.weight"}
        assert stored[f"{prefix}layer.weight"].dtype == "nvfp4"


@pytest.mark.parametrize("shape", [[200, 250], [300, 288]])
def test_padding_that_is_noted_is_left_out(shape: list[int], tmp_path: Path) -> None:
    weight = torch.zeros(208, 256)
    weight[:200, :250] = BIG[:200, :250]
    tensors, exact = noted(nvfp4(weight), "nvfp4", orig_shape=shape)
    path = written(tmp_path, {f"layer.{part}": each for part, each in tensors.items()})
    rows, columns = shape if shape == [200, 250] else (208, 256)  # what can't be is not heeded
    with open_weights([path], "transformer") as stored:
        found = stored["layer.weight"]
        assert found.shape == (rows, columns)
        torch.testing.assert_close(found.rows(3, rows), exact[3:rows, :columns])


@pytest.mark.parametrize(("bias", "rows"), [(200, 200), (208, 208), (100, 208)])
def test_the_bias_tells_what_rows_are_padding(bias: int, rows: int, tmp_path: Path) -> None:
    weight = BIG[:208, :256].clone()
    tensors, exact = nvfp4(weight)
    named = {f"layer.{part}": each for part, each in tensors.items()}
    path = written(tmp_path, named | {"layer.bias": torch.zeros(bias)})
    with open_weights([path], "transformer") as stored:
        found = stored["layer.weight"]
        assert found.shape == (rows, 256)
        torch.testing.assert_close(found.rows(0, rows), exact[:rows])


@pytest.mark.parametrize("size", [0, -1, 10**30, "64", True, [64], [None, 1]])
def test_a_size_of_blocks_that_can_not_be_is_not_heeded(size: object, tmp_path: Path) -> None:
    storage = kept(float8(BIG, (128, 128)), tmp_path, group_size=size)
    exact = float8(BIG, (128, 128)).exact
    torch.testing.assert_close(storage.dequantized(torch.float32), exact, rtol=1e-6, atol=0)


def test_inputs_that_are_smoothed_take_the_factors_of_the_file(tmp_path: Path) -> None:
    smoothing = torch.rand(COLUMNS) + 0.5
    tensors, exact = nvfp4(BIG)
    tensors = tensors | {"pre_quant_scale": smoothing}
    path = written(tmp_path, {f"layer.{part}": each for part, each in tensors.items()})
    x = torch.randn(4, COLUMNS)
    with open_weights([path], "transformer") as stored:
        weight = stored["layer.weight"]
        assert isinstance(weight, Quantized)
        product = weight.keep(0, ROWS).product(x)
    torch.testing.assert_close(product, F.linear(x * smoothing, exact), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_convolutions_and_norms_are_read_as_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    kernel, norm = torch.randn(8, 4, 3, 3), torch.randn(8)
    scale = torch.tensor(0.5)
    path = written(
        tmp_path,
        {
            "conv.weight": kernel.to(dtype),
            "conv.weight_scale": scale,
            "norm.weight": norm.to(dtype),
            "norm.bias": norm.to(dtype),
            "plain.weight": BIG,
            "plain.input_scale": torch.ones(()),
            "scaled_fp8": torch.zeros(2).to(dtype),
            "attn.comfy_attention.config": torch.zeros(9, dtype=torch.uint8),
        },
    )
    with open_weights([path], "transformer") as stored:
        assert stored.keys() == {"conv.weight", "norm.weight", "norm.bias", "plain.weight"}
        assert torch.equal(stored["conv.weight"].rows(2, 8), kernel.to(dtype).float()[2:] * 0.5)
        assert torch.equal(stored["norm.weight"].rows(0, 8), norm.to(dtype).float())


CONFIGS: dict[str, tuple[dict[str, object], Callable[[Tensor], Parts]]] = {
    "fp8": (
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        lambda w: float8(w, (128, 128), name="weight_scale_inv"),
    ),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, lambda w: float8(w, (1, w.shape[1]))),
    "modelopt fp8": ({"quant_method": "modelopt", "quant_algo": "FP8"}, float8),
    "modelopt nvfp4": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        partial(nvfp4, tiles=False, high_first=False),
    ),
    "swapped": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "swap_weight_nibbles": True},
        partial(nvfp4, tiles=False, high_first=True),
    ),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
        lambda w: float8(w, (1, COLUMNS)),
    ),
    "compressed nvfp4": (
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        lambda w: packed(nvfp4(w, tiles=False, high_first=False)),
    ),
}


def packed(parts: Parts) -> Parts:
    """As compressed-tensors has it: its scale in total divides."""
    tensors = dict(parts.tensors)
    tensors["weight_packed"] = tensors.pop("weight")
    tensors["weight_global_scale"] = (1 / tensors.pop("weight_scale_2")).reshape(1)
    return Parts(tensors, parts.exact)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_of_a_folder_tells_how_scales_are_arranged(name: str, tmp_path: Path) -> None:
    config, make = CONFIGS[name]
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(json.dumps({"quantization_config": config}))
    weight = BIG[:128].repeat(1, 2)[:, :256]  # whole tiles: the shape does not tell
    tensors, exact = make(weight if "float-q" not in str(config) else BIG)
    path = written(
        tmp_path / "transformer", {f"layer.{part}": each for part, each in tensors.items()}
    )
    settings = quantization_settings(tmp_path, "transformer")
    with open_weights([path], "transformer", settings) as stored:
        assert stored.keys() == {"layer.weight"}
        found = stored["layer.weight"]
        torch.testing.assert_close(found.rows(0, len(exact)), exact, rtol=1e-6, atol=0)


def test_modelopts_own_file_tells_it_too(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text("{}")
    own = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}
    (tmp_path / "transformer/hf_quant_config.json").write_text(json.dumps(own))
    assert quantization_settings(tmp_path, "transformer")["linear_scales"]
