"""Checkpoints whose weights are integers, or indices into a table: what is kept and drawn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from denoisers import load_denoiser, tensors
from engineless import load, run
from engines import start_engine, submit_to
from integer_weights import bitsandbytes_int8, int8, int8_noted, int8_rotated
from library_weights import Written, four_bits, torchao_float8, torchao_int8, torchao_intx
from loras import diffusers_keys, random_lora
from loras import write as write_lora
from quantized_weights import Parts, quantized, rewrite, set_config
from safetensors.torch import load_file, save_file
from single_files import COMFY, ORIGINAL, flux, prefixed
from tiny_checkpoints import stock_pipeline
from torch import Tensor, nn

from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight

Checkpoints = Callable[..., Path]


def bitsandbytes(weight: Tensor, **options: Any) -> Parts:
    written = four_bits(weight, layer="", **options)
    return Parts({name[1:]: each for name, each in written.tensors.items()}, written.exact)


rotated = partial(int8_rotated, group=16)
FORMS: dict[str, tuple[str, Callable[[Tensor], Parts]]] = {
    "int8": ("int8", int8_noted),
    "ConvRot": ("int8-ConvRot", rotated),
    "nf4": ("nf4", bitsandbytes),
    "nf4, nested": ("nf4", partial(bitsandbytes, nested=True)),
    "int8 of bitsandbytes": ("int8", bitsandbytes_int8),
}
TORCHAO: dict[str, tuple[str, Callable[[Tensor], Written]]] = {
    "int8": ("int8", torchao_int8),
    "intx": ("intx", partial(torchao_intx, group=16)),
    "float8": ("float8_e4m3fn", torchao_float8),
}


def forms(module: nn.Module) -> set[str]:
    kept = [each for each in module.modules() if isinstance(each, KeptWeight)]
    return {form for each in kept for form in each.forms}


def check_close(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = tensors(one), tensors(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)


@pytest.fixture
def pair(checkpoints: Checkpoints, tmp_path: Path) -> Callable[[str], tuple[Path, ...]]:
    """Two copies of a tiny checkpoint to write to."""
    return lambda name: tuple(
        Path(shutil.copytree(checkpoints(name), tmp_path / each)) for each in ("kept", "exact")
    )


def rewrite_as_torchao(
    folder: Path, component: str, make: Callable[[Tensor], Written], exact: Path
) -> None:
    """Put a component's weights into tensors that torchao flattened."""
    (file,) = (folder / component).glob("*.safetensors")
    stored: dict[str, Tensor] = {}
    numbers: dict[str, Tensor] = {}
    notes = {"format": "pt"}
    for name, tensor in load_file(file).items():
        layer, _, part = name.rpartition(".")
        numbers[name], notes[name] = tensor, json.dumps({"_type": "Tensor"})
        if part != "weight" or tensor.dim() != 2 or tensor.shape[1] % 16:
            stored[name] = tensor
            continue
        written = make(tensor)
        numbers[name], notes[name] = written.exact, written.notes["layer.weight"]
        own = {key.replace("layer", layer, 1): each for key, each in written.tensors.items()}
        stored |= {key: each.contiguous() for key, each in own.items()}
    notes["tensor_names"] = json.dumps([*numbers])
    save_file(stored, file, notes)
    save_file({key: each.contiguous() for key, each in numbers.items()},
              exact / component / file.name)  # fmt: skip
    set_config(folder, component, quantization_config={"quant_method": "torchao"})


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("prefix", ["", COMFY])
def test_a_single_file_keeps_its_form(
    name: str, prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder, (form, make) = checkpoints("flux-schnell"), FORMS[name]
    stored, exact = quantized(flux(folder), make)
    path, numbers = tmp_path / "kept.safetensors", tmp_path / "exact.safetensors"
    save_file(prefixed(stored, prefix), path)
    save_file(prefixed(exact, prefix), numbers)
    kept = load_denoiser(folder, path)
    assert forms(kept) == {form}
    check_close(kept, load_denoiser(folder, numbers))
    assert identify(path).quantisation == (form,)
    one, other = (identify(each).components[0] for each in (path, numbers))
    assert one.parameters == other.parameters


@pytest.mark.parametrize("make", [rotated, bitsandbytes])
@pytest.mark.parametrize("name", ORIGINAL)
def test_rows_that_a_converter_moves_take_their_scales_along(
    name: str, make: Any, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    stored, exact = quantized(ORIGINAL[name](folder), make)
    path, numbers = tmp_path / "kept.safetensors", tmp_path / "exact.safetensors"
    save_file(stored, path)
    save_file(exact, numbers)
    kept = load_denoiser(folder, path)
    assert forms(kept)
    check_close(kept, load_denoiser(folder, numbers))


@pytest.mark.parametrize("name", ["zimage", "flux-dev"])
@pytest.mark.parametrize("make", [bitsandbytes, bitsandbytes_int8])
def test_folders_of_bitsandbytes_draw_what_their_numbers_draw(
    name: str, make: Any, pair: Any
) -> None:
    kept, exact = pair(name)
    encoder = "text_encoder_2" if name == "flux-dev" else "text_encoder"
    for component in ("transformer", encoder):
        rewrite(kept, component, make, exact=exact)
        config = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["lm_head"]}
        set_config(kept, component, quantization_config=config)
    params = SamplingParams(prompt="a red heart", width=32, height=32, num_inference_steps=2)
    pipelines = [load(folder) for folder in (kept, exact)]
    for component in ("transformer", encoder):
        assert forms(pipelines[0].components[component]) <= {"nf4", "int8"}
        assert forms(pipelines[0].components[component])
    one, other = (run(pipeline, params).pixels.astype(int) for pipeline in pipelines)
    assert np.abs(one - other).max() <= 1
    assert not identify(kept).complaints


@pytest.mark.parametrize("name", TORCHAO)
def test_folders_of_torchao_draw_what_their_numbers_draw(name: str, pair: Any) -> None:
    kept, exact = pair("zimage")
    form, make = TORCHAO[name]
    for component in ("transformer", "text_encoder"):
        rewrite_as_torchao(kept, component, make, exact)
    params = SamplingParams(prompt="a red heart", width=32, height=32, num_inference_steps=2)
    pipelines = [load(folder) for folder in (kept, exact)]
    for component in ("transformer", "text_encoder"):
        assert forms(pipelines[0].components[component]) == {form}
    one, other = (run(pipeline, params).pixels.astype(int) for pipeline in pipelines)
    assert np.abs(one - other).max() <= 1
    described = {each.name: each for each in identify(kept).components}
    assert form in described["transformer"].dtypes
    assert not identify(kept).complaints


def test_parts_of_one_product_in_unlike_forms_draw_with_loras_on_ranks_that_share_a_sequence(
    pair: Any, tmp_path: Path
) -> None:
    kept, exact = pair("flux-dev")
    rewrite(kept, "transformer", int8, rotated, bitsandbytes, bitsandbytes_int8, exact=exact)
    denoiser = load_denoiser(kept)
    mixed = {each.forms for each in denoiser.modules() if isinstance(each, KeptWeight)}
    assert any(len(set(each)) > 2 for each in mixed), mixed
    check_close(denoiser, load_denoiser(exact))
    keys = diffusers_keys("transformer", random_lora(stock_pipeline(exact).transformer, "attn ff"))
    write_lora(tmp_path / "a.safetensors", keys)
    call = {"width": 48, "height": 64, "num_inference_steps": 2, "lora": "a:0.7"}
    found = []
    for num_gpus in (2, 1):
        options = {"model_path": str(kept), "lora_dir": str(tmp_path)}
        with start_engine(num_gpus=num_gpus, **options) as engine:
            found.append(submit_to(engine, **call).result(300).pixels.astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1


@pytest.mark.parametrize("name", FORMS)
def test_no_more_is_kept_than_the_file_has(
    name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("flux-schnell", heads=16)
    stored, _ = quantized(flux(folder), FORMS[name][1])
    path = tmp_path / "kept.safetensors"
    save_file(stored, path)
    kept = load_denoiser(folder, path)
    held = {each.data_ptr(): each.nbytes for each in (*kept.parameters(), *kept.buffers())}
    assert sum(held.values()) <= 1.05 * path.stat().st_size
