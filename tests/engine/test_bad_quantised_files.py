"""Quantised files that can't be, and what is said about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from integer_weights import int8_rotated
from quantized_weights import float8, mxfp8, note, nvfp4, written
from torch import Tensor

from multimodal_gen.checkpoints.quantization_config import quantization_settings
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.quantized.forms import open_weights

ROWS, COLUMNS = 300, 288
BIG = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
E4M3 = torch.float8_e4m3fn

BAD: dict[str, tuple[dict[str, Tensor], str]] = {
    "no number": (float8(BIG).tensors | {"weight_scale": torch.tensor(torch.nan)}, "scale of nan"),
    "zero": (float8(BIG).tensors | {"weight_scale": torch.zeros(1)}, r"scale of 0\.0"),
    "negative": (float8(BIG).tensors | {"weight_scale": -torch.ones(ROWS)}, r"scale of -1\.0"),
    "infinite": (
        {"weight": BIG.to(E4M3), "scale_weight": torch.tensor(torch.inf)},
        r"scale_weight: a scale of inf must be positive and finite \(float8_e4m3fn\)",
    ),
    "another shape": (float8(BIG).tensors | {"weight_scale": torch.ones(7)}, r"F32 \[7\] must be"),
    "blocks": (float8(BIG).tensors | {"weight_scale": torch.ones(7, 9)}, r"\[7, 9\] must be"),
    "whole numbers": (
        float8(BIG).tensors | {"weight_scale": torch.ones(1, dtype=torch.int32)},
        "I32 must be floating point",
    ),
    "no weight": ({"weight_scale": torch.ones(1)}, r"\(scaled\): has weight_scale, but no weight"),
    "no block scales": (
        {"weight": nvfp4(BIG).tensors["weight"], **note("nvfp4")},
        r"weight_scale: is missing \(nvfp4\)",
    ),
    "no scale in total": (
        {name: each for name, each in nvfp4(BIG).tensors.items() if name != "weight_scale_2"},
        r"weight_scale_2: is missing \(nvfp4\)",
    ),
    "block scales of another shape": (
        nvfp4(BIG).tensors | {"weight_scale": torch.ones(128, 16).to(E4M3)},
        r"F8_E4M3 \[128, 16\] must be a byte for each 16 columns",
    ),
    "block scales of another type": (
        nvfp4(BIG).tensors | {"weight_scale": torch.ones(ROWS, 18)},
        r"weight_scale: F32 \[300, 18\] must be a byte for each 16 columns .* \(nvfp4\)",
    ),
    "negative block scales": (
        nvfp4(BIG).tensors | {"weight_scale": (-torch.ones(384, 20)).to(E4M3)},
        r"scale of -1\.0 must be finite and not negative \(nvfp4\)",
    ),
    "block scales without number": (
        nvfp4(BIG).tensors | {"weight_scale": torch.full((ROWS, 18), torch.nan).to(E4M3)},
        r"scale of nan must be finite and not negative \(nvfp4\)",
    ),
    "exponents without number": (
        mxfp8(BIG).tensors | {"weight_scale": torch.full((384, 12), 255, dtype=torch.uint8)},
        r"scale of nan must be finite and not negative \(mxfp8\)",
    ),
    "numbers of another type": (
        {"weight": BIG, "weight_scale": torch.ones(()), **note("float8_e4m3fn")},
        r"layer\.weight: F32 must be F8_E4M3 or U8 or I8 \(float8_e4m3fn\)",
    ),
    "a packed convolution": (
        {"weight": torch.ones(4, 4, 2, 2, dtype=torch.uint8), **note("nvfp4")},
        r"\[4, 4, 2, 2\] must be a matrix \(nvfp4\)",
    ),
    "an unknown form": (
        {"weight": BIG, **note("float7")},
        r"layer: form 'float7' is not supported; float8_e4m3fn, ",
    ),
    "a form of Nunchaku": (
        {
            "qweight": torch.zeros(ROWS, COLUMNS // 2, dtype=torch.int8),
            "wscales": torch.ones(9, 300),
        },
        r"weights\.safetensors: layer\.qweight: the form of .*SVDQuant .* is not supported; float8",
    ),
    "a form of HQQ": ({"W_q": torch.zeros(9, 9, dtype=torch.uint8)}, "the form of HQQ is not"),
    "groups that are no whole number": (
        int8_rotated(BIG[:, :256].contiguous(), 16).tensors
        | note("int8_tensorwise", convrot=True, convrot_groupsize=16.0),
        r"weights\.safetensors: layer\.comfy_quant: convrot_groupsize=16\.0 must be one of \[4, ",
    ),
    "rotated": (
        nvfp4(BIG).tensors | note("nvfp4", convrot=True),
        r"convrot is supported for int8 only \(nvfp4\)",
    ),
    "smoothing of another width": (
        nvfp4(BIG).tensors | {"pre_quant_scale": torch.ones(3)},
        r"pre_quant_scale: F32 \[3\] must be one per column",
    ),
    "a note that is no JSON": (
        {"weight": BIG, "comfy_quant": torch.tensor([1, 2], dtype=torch.uint8)},
        r"layer\.comfy_quant: not valid JSON",
    ),
    "a note of many brackets": (
        {"weight": BIG, "comfy_quant": torch.tensor([*(b'{"a":' + b"[" * 9000)]).to(torch.uint8)},
        r"layer\.comfy_quant: not valid JSON",
    ),
    "a long note": (
        {"weight": BIG, "comfy_quant": torch.zeros(1 << 20, dtype=torch.uint8)},
        "U8 of 1048576 bytes must be JSON in U8 of at most",
    ),
    "a note without a form": (
        {"weight": BIG, "comfy_quant": torch.tensor([*b'{"group_size": 2}']).to(torch.uint8)},
        r"layer\.comfy_quant: .* must name a format",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_is_refused_by_name(name: str, tmp_path: Path) -> None:
    tensors, message = BAD[name]
    path = written(tmp_path, {f"layer.{part}": each for part, each in tensors.items()})
    with pytest.raises(InvalidCheckpoint, match=message), open_weights([path], "transformer"):
        pass


@pytest.mark.parametrize(
    ("noted", "message"),
    [
        ("{", "not valid JSON"),
        ('{"layers":' + "[" * 100_000, "not valid JSON"),
        ("{}", "has no layers"),
        ('{"layers": []}', "has no layers"),
        ('{"layers": {"layer": {}}}', r"layer: \{\} must name a format"),
        ('{"layers": {"layer": {"format": 3}}}', "must name a format"),
        ('{"layers": {"other": {"format": "nvfp4"}}}', r"other \(nvfp4\): there is no such weight"),
        ('{"layers": {"layer": "float7"}}', "form 'float7' is not supported"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(noted: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"layer.weight": BIG}, metadata={"_quantization_metadata": noted})
    with pytest.raises(InvalidCheckpoint, match=message), open_weights([path], "transformer"):
        pass


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "quark"}, r"quant_method='quark' is not supported; modelopt, "),
        ({"quant_method": ["fp8"]}, r"quant_method=\['fp8'\] is not supported"),
        ({"a": 1}, "quant_method=None is not supported"),
        ("fp8", "must be an object, not fp8"),
        ({"quant_method": "modelopt"}, "quant_algo=None is not supported; FP8, "),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "quant_algo='W4A8_AWQ' is not"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "format='pack-q"),
    ],
)
def test_methods_that_are_not_known_are_refused(
    config: object, message: str, tmp_path: Path
) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(json.dumps({"quantization_config": config}))
    with pytest.raises(InvalidCheckpoint, match=message):
        quantization_settings(tmp_path, "transformer")
