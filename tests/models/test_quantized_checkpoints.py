"""Checkpoints in quantised forms: what they keep, and that they draw what their numbers draw."""

from __future__ import annotations

import re
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
from full_checkpoints import flux_with_encoders, unet
from loras import diffusers_keys, random_lora
from loras import write as write_lora
from quantized_weights import (
    Parts,
    float8,
    metadata,
    mxfp8,
    nvfp4,
    quantized,
    rewrite,
    set_config,
)
from safetensors.torch import save_file
from single_files import COMFY, ORIGINAL, flux, prefixed, weights
from tiny_checkpoints import stock_pipeline
from torch import Tensor, nn
from tried_forms import QUANTIZED

from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.layers.quantized.library import KeptEmbedding, KeptLinear
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.pipelines.registry import load_pipeline

Checkpoints = Callable[..., Path]
FORMS: dict[str, Callable[[Tensor], Parts]] = {
    "float8_e4m3fn": float8,
    "float8_e5m2": partial(float8, dtype=torch.float8_e5m2),
    "mxfp8": mxfp8,
    "nvfp4": nvfp4,
}
FOLDER_FORMS: dict[str, tuple[Callable[[Tensor], Parts], dict[str, Any]]] = {
    "float8_e4m3fn": (float8, {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "nvfp4": (
        partial(nvfp4, tiles=False, high_first=False),
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    ),
}


def by_row(weight: Tensor) -> Parts:
    return float8(weight, (1, weight.shape[1]), name="scale_weight")


def by_tensor(weight: Tensor) -> Parts:
    tensors, exact = float8(weight, name="scale_weight")
    return Parts(tensors | {"scale_input": torch.ones(())}, exact)


def plain(weight: Tensor) -> Parts:
    return Parts({"weight": weight}, weight)


def forms(module: nn.Module) -> set[str]:
    kept = [each for each in module.modules() if isinstance(each, KeptWeight)]
    return {form for each in kept for form in each.forms}


def kept_bytes(module: nn.Module) -> int:
    all_of = [*module.parameters(), *module.buffers()]
    return sum({each.data_ptr(): each.nbytes for each in all_of}.values())


def check_same(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = tensors(one), tensors(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-8)


@pytest.fixture(scope="module")
def pair(
    checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """Two copies of a tiny checkpoint to write to."""

    def copies(name: str, **options: Any) -> tuple[Path, Path]:
        root = tmp_path_factory.mktemp("pair")
        folder = checkpoints(name, **options)
        return tuple(Path(shutil.copytree(folder, root / each)) for each in ("kept", "exact"))

    return copies


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", ["", COMFY])
def test_a_single_file_keeps_its_form(
    form: str, prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("flux-schnell")
    stored, exact = quantized(flux(folder), FORMS[form])
    path, numbers = tmp_path / "kept.safetensors", tmp_path / "exact.safetensors"
    layers = {name.removesuffix(".weight") for name in stored if f"{name}_scale" in stored}
    save_file(prefixed(stored, prefix), path, metadata(dict.fromkeys(layers, form)))
    save_file(prefixed(exact, prefix), numbers)
    kept = load_denoiser(folder, path)
    assert forms(kept) == {form}
    check_same(kept, load_denoiser(folder, numbers))
    component = identify(path).components[0]
    assert form in component.dtypes
    assert identify(path).quantisation == (form,)
    assert component.parameters == identify(numbers).components[0].parameters


@pytest.mark.parametrize("make", [by_row, nvfp4])
@pytest.mark.parametrize("name", QUANTIZED)
def test_rows_that_a_converter_moves_take_their_scales_along(
    name: str, make: Any, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    original = {**ORIGINAL, "sd15": lambda folder: prefixed(unet(folder), COMFY)}[name]
    stored, exact = quantized(original(folder), make)
    path, numbers = tmp_path / "kept.safetensors", tmp_path / "exact.safetensors"
    save_file(stored, path)
    save_file(exact, numbers)
    kept = load_denoiser(folder, path)
    assert forms(kept) & FORMS.keys()
    check_same(kept, load_denoiser(folder, numbers))


@pytest.mark.parametrize("form", FOLDER_FORMS)
@pytest.mark.parametrize("name", ["flux-schnell", "wan", "zimage", "qwenimage"])
def test_a_folder_keeps_its_form(form: str, name: str, pair: Any) -> None:
    kept, exact = pair(name)
    make, config = FOLDER_FORMS[form]
    rewrite(kept, "transformer", make, exact=exact)
    set_config(kept, "transformer", quantization_config=config)
    denoiser = load_denoiser(kept)
    assert form in forms(denoiser)
    check_same(denoiser, load_denoiser(exact))
    (transformer,) = [each for each in identify(kept).components if each.name == "transformer"]
    assert form in transformer.dtypes
    assert transformer.problem is None


def test_parts_of_one_product_that_are_stored_differently_are_not_quantised_anew(
    pair: Any,
) -> None:
    kept, exact = pair("flux-dev")
    rewrite(kept, "transformer", by_row, plain, nvfp4, mxfp8, float8, exact=exact)
    denoiser = load_denoiser(kept)
    mixed = {each.forms for each in denoiser.modules() if isinstance(each, KeptWeight)}
    assert any(len(set(each)) > 2 for each in mixed), mixed
    check_same(denoiser, load_denoiser(exact))


@pytest.mark.parametrize("make", [float8, mxfp8, nvfp4])
@pytest.mark.parametrize("name", ["zimage", "wan", "flux-schnell", "sana", "lumina2"])
def test_the_weights_of_a_text_encoder_are_kept(make: Any, name: str, pair: Any) -> None:
    kept, exact = pair(name)
    component = "text_encoder_2" if name == "flux-schnell" else "text_encoder"
    rewrite(kept, component, make, exact=exact)
    params = SamplingParams(prompt="a red heart", width=32, height=32, num_inference_steps=2)
    pipelines = [load(folder) for folder in (kept, exact)]
    encoder = pipelines[0].components[component]
    kinds = {type(each) for each in encoder.modules()}
    assert {KeptLinear, KeptEmbedding} <= kinds
    one, other = (run(pipeline, params).pixels.astype(int) for pipeline in pipelines)
    assert np.abs(one - other).max() <= 1


def drawn(folder: Path, **options: Any) -> Any:
    pipeline = load_pipeline(
        folder, device=torch.device("cpu"), dtype=torch.float32, mesh=Mesh(), **options
    )
    params = SamplingParams(prompt="a red heart", width=32, height=32, num_inference_steps=2)
    return run(pipeline, params).pixels.astype(int)


def test_comfyuis_file_of_a_text_encoder_is_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("flux-schnell")
    stored, exact = quantized(weights(folder, "text_encoder_2"), by_tensor)
    marker = {"scaled_fp8": torch.zeros(0).to(torch.float8_e4m3fn)}
    kept, numbers = tmp_path / "t5xxl_fp8_scaled.safetensors", tmp_path / "t5xxl.safetensors"
    save_file(stored | marker, kept)
    save_file(exact, numbers)
    one, other = (drawn(folder, component_files={"text_encoder_2": f}) for f in (kept, numbers))
    assert np.abs(one - other).max() <= 1
    assert np.abs(one - drawn(folder)).max() > 1


@pytest.mark.parametrize("make", ["all in float8", "float8 with scales"])
def test_all_components_of_one_file_are_kept(
    make: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("flux-schnell")
    tensors = flux_with_encoders(folder)
    if make == "all in float8":
        stored = {name: each.to(torch.float8_e4m3fn) for name, each in tensors.items()}
        exact = {name: each.float() for name, each in stored.items()}
    else:
        stored, exact = quantized(tensors, by_tensor)
        stored["text_encoders.t5xxl.transformer.scaled_fp8"] = torch.zeros(2).to(
            torch.float8_e4m3fn
        )
    kept, numbers = tmp_path / "kept.safetensors", tmp_path / "exact.safetensors"
    save_file(stored, kept)
    save_file(exact, numbers)
    one, other = (drawn(folder, file=file) for file in (kept, numbers))
    assert np.abs(one - other).max() <= 1
    assert all("float8_e4m3fn" in each.dtypes for each in identify(kept).components[:1])


def test_they_draw_with_loras_on_ranks_that_share_a_sequence(pair: Any, tmp_path: Path) -> None:
    kept, exact = pair("flux-dev")
    rewrite(kept, "transformer", by_row, plain, nvfp4, mxfp8, float8, exact=exact)
    stock = stock_pipeline(exact)
    keys = diffusers_keys("transformer", random_lora(stock.transformer, "attn ff"))
    write_lora(tmp_path / "a.safetensors", keys)
    call = {"width": 48, "height": 64, "num_inference_steps": 2, "lora": "a:0.7"}
    found = []
    for folder, num_gpus in ((kept, 2), (exact, 1)):
        with start_engine(
            model_path=str(folder), lora_dir=str(tmp_path), num_gpus=num_gpus
        ) as engine:
            found.append(submit_to(engine, **call).result(300).pixels.astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1


@pytest.mark.parametrize("form", FORMS)
def test_no_more_is_kept_than_the_file_has(
    form: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("flux-schnell", heads=16)
    stored, _ = quantized(flux(folder), FORMS[form])
    path = tmp_path / "kept.safetensors"
    save_file(stored, path)
    assert kept_bytes(load_denoiser(folder, path)) <= 1.05 * path.stat().st_size


def test_a_form_without_a_kernel_is_told_with_what_it_costs(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kept, exact = pair("flux-schnell")
    rewrite(kept, "transformer", nvfp4, float8, exact=exact)
    pipeline = load(kept)
    (warning,) = pipeline.model_info("flux").warnings
    said = "transformer: this device has no kernel for weights in "
    assert warning.startswith((f"{said}nvfp4, float8_e4m3fn:", f"{said}float8_e4m3fn, nvfp4:"))
    assert re.search(r"which takes about \d+\.\d times as long as 16-bit weights", warning)
    assert [record.getMessage() for record in caplog.records] == [warning]
    assert load(exact).model_info("flux").warnings == ()


@pytest.mark.parametrize("component", ["transformer", "text_encoder_2"])
def test_a_method_that_is_not_known_is_told_before_and_while_loading(
    component: str, pair: Any
) -> None:
    folder, _ = pair("flux-schnell")
    set_config(folder, component, quantization_config={"quant_method": "quark"})
    said = rf"{component}/config\.json: quantization_config: quant_method='quark' is not supported"
    assert [re.match(said, each) is not None for each in identify(folder).complaints] == [True]
    with pytest.raises(InvalidCheckpoint, match=said):
        load(folder)
