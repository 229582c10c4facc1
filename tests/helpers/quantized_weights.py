"""Weights in quantised forms, in the tensors that public tools write for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


class Parts(NamedTuple):
    """Tensors by the last part of their names, and the numbers that they stand for."""

    tensors: dict[str, Tensor]
    exact: Tensor


def float8(
    weight: Tensor,
    block: tuple[int, int] | None = None,
    *,
    name: str = "weight_scale",
    dtype: torch.dtype = torch.float8_e4m3fn,
) -> Parts:
    """With a scale for each block of rows and columns."""
    rows, columns = block or tuple(weight.shape)
    grid = weight.new_empty(-(-len(weight) // rows), -(-weight.shape[1] // columns))
    for r in range(len(grid)):
        for c in range(grid.shape[1]):
            part = weight[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            grid[r, c] = part.abs().max() / LARGEST[dtype]
    whole = grid.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    whole = whole[: len(weight), : weight.shape[1]]
    numbers = (weight / whole).to(dtype)
    scale = grid.reshape(()) if grid.numel() == 1 else grid
    return Parts({"weight": numbers, name: scale}, numbers.float() * whole)


def mxfp8(weight: Tensor, *, tiles: bool = True) -> Parts:
    """float8 with exponents for each 32 columns."""
    blocks = weight.unflatten(1, (-1, 32))
    exponents = (blocks.abs().amax(-1) / 448).log2().ceil().clamp(min=-127)
    scales = (2.0**exponents)[:, :, None]
    numbers = (blocks / scales).flatten(1).to(torch.float8_e4m3fn)
    bytes_ = (exponents + 127).to(torch.uint8)
    stored = in_tiles(bytes_) if tiles else bytes_
    exact = (numbers.float().unflatten(1, (-1, 32)) * scales).flatten(1)
    return Parts({"weight": numbers, "weight_scale": stored}, exact)


def nvfp4(weight: Tensor, *, tiles: bool = True, high_first: bool = True) -> Parts:
    """Two numbers in a byte, with a scale for each 16 columns and one in total."""
    total = weight.abs().max() / (448 * 6)
    blocks = weight.unflatten(1, (-1, 16))
    scales = (blocks.abs().amax(-1) / 6 / total).to(torch.float8_e4m3fn)
    whole = (scales.float() * total)[:, :, None]
    codes = ((blocks / whole.clamp(min=1e-30))[..., None] - E2M1).abs().argmin(-1).flatten(1)
    first, second = codes[:, ::2], codes[:, 1::2]
    high, low = (first, second) if high_first else (second, first)
    stored = in_tiles(scales.view(torch.uint8)) if tiles else scales.view(torch.uint8)
    exact = (E2M1[codes].unflatten(1, (-1, 16)) * whole).flatten(1)
    tensors = {
        "weight": (high * 16 + low).to(torch.uint8),
        "weight_scale": stored.view(torch.float8_e4m3fn),
        "weight_scale_2": total,
    }
    return Parts(tensors, exact)


def in_tiles(scales: Tensor) -> Tensor:
    """Scales in the order of cuBLAS: at (r % 32) * 16 + (r % 128) // 32 * 4 + c % 4 in a tile of
    128 rows and 4 columns."""
    rows, columns = -(-len(scales) // 128) * 128, -(-scales.shape[1] // 4) * 4
    flat = scales.new_zeros(rows * columns)
    r, c = torch.meshgrid(*(torch.arange(size) for size in scales.shape), indexing="ij")
    tile = r // 128 * (columns // 4) + c // 4
    flat[tile * 512 + r % 32 * 16 + r % 128 // 32 * 4 + c % 4] = scales
    return flat.view(rows, columns)


def note(form: str, **settings: Any) -> dict[str, Tensor]:
    """ComfyUI's note beside a weight."""
    text = json.dumps({"format": form, **settings})
    return {"comfy_quant": torch.tensor(list(text.encode()), dtype=torch.uint8)}


def metadata(forms: Mapping[str, str]) -> dict[str, str]:
    """ComfyUI's notes in a file's header, by layer."""
    layers = {name: {"format": form} for name, form in forms.items()}
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def written(folder: Path, tensors: Mapping[str, Tensor], **options: dict[str, str]) -> Path:
    """A file with these tensors."""
    path = folder / "weights.safetensors"
    save_file({name: each.contiguous() for name, each in tensors.items()}, path, **options)
    return path


def quantized(
    tensors: Mapping[str, Tensor], *makers: Callable[[Tensor], Parts]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A model's tensors with its matrices in quantised forms, one maker after the other, and the
    same in the numbers that these stand for. Widths that split into no blocks stay as they are."""
    stored, exact, turn = {}, {}, 0
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        if part != "weight" or tensor.dim() != 2 or tensor.shape[1] % 32:
            stored[name] = exact[name] = tensor
            continue
        made = makers[turn % len(makers)](tensor)
        turn += 1
        stored |= {f"{layer}.{each}": values for each, values in made.tensors.items()}
        exact[name] = made.exact
    assert turn >= len(makers)
    return stored, exact


def rewrite(folder: Path, component: str, *makers: Callable[[Tensor], Parts], exact: Path) -> None:
    """Put a component's weights into quantised forms in `folder`, and in the folder `exact` into
    the numbers that these stand for."""
    (file,) = (folder / component).glob("*.safetensors")
    stored, numbers = quantized(load_file(file), *makers)
    save_file({name: each.contiguous() for name, each in stored.items()}, file)
    save_file(
        {name: each.contiguous() for name, each in numbers.items()},
        exact / component / file.name,
    )


def set_config(folder: Path, component: str, **values: Any) -> None:
    path = folder / component / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
