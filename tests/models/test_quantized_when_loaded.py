"""`--quantization`: which weights are quantised while they are loaded, and what is drawn then."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from denoisers import tensors
from engineless import load, run
from engines import start_engine, submit_to
from integer_weights import int8
from loras import diffusers_keys, random_lora
from loras import write as write_lora
from quantized_weights import Parts, rewrite
from safetensors.torch import save_file
from single_files import flux, write_gguf
from tiny_checkpoints import stock_pipeline
from torch import nn

from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.loader.tensors import stored, when_loaded
from multimodal_gen.runtime.loader.tensors.safetensors_file import open_safetensors
from multimodal_gen.runtime.loader.tensors.weights import fill
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline

Checkpoints = Callable[..., Path]
NATIVE = ["flux-dev", "chroma", "flux2-klein", "qwenimage", "sd3", "wan", "wan-vace", "zimage"]
BUNDLED = Path(__file__).parents[2] / "multimodal_gen" / "assets" / "bundled_model"
FORMS = {"int8": "int8", "fp8": "float8_e4m3fn", "nf4": "nf4"}
EXACT = ("embedder", "modulation", "time_proj", "approximator")


def quantized(folder: Path, form: Quantization | None) -> ComposedPipeline:
    device = torch.device("cpu")
    return load_pipeline(folder, device=device, dtype=torch.float32, mesh=Mesh(), quantization=form)


def kept(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Forms of the layers that keep one, by name."""
    return {
        name.removesuffix(".kept"): each.forms
        for name, each in module.named_modules()
        if isinstance(each, KeptWeight)
    }


def plain(weight: torch.Tensor) -> Parts:
    return Parts({"weight": weight}, weight)


def decibels(one: Any, other: Any) -> float:
    """Peak signal-to-noise ratio of two pictures."""
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return 10 * math.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize("name", NATIVE)
def test_all_layers_of_a_transformer_are_but_embedders_modulation_and_output(
    name: str, checkpoints: Checkpoints
) -> None:
    denoiser = quantized(checkpoints(name), "int8").denoiser_module
    layers = {name for name, each in denoiser.named_modules() if type(each) is Linear}
    named = {each for each in layers if any(part in each for part in EXACT)} | {"proj_out"}
    assert kept(denoiser) == dict.fromkeys(layers - named, ("int8",))
    refined = {"text_refiners"} if hasattr(denoiser, "text_refiners") else set()
    assert {each.split(".")[0] for each in layers - named} == {"blocks"} | refined


@pytest.mark.parametrize("form", FORMS)
def test_the_numbers_are_close_to_those_of_the_file(form: Any, checkpoints: Checkpoints) -> None:
    folder = checkpoints("flux-dev", heads=16)
    exact, own = tensors(load(folder).denoiser_module), quantized(folder, form).denoiser_module
    assert {each for forms in kept(own).values() for each in forms} == {FORMS[form]}
    numbers = tensors(own)
    assert numbers.keys() == exact.keys()
    largest = {"int8": 0.01, "fp8": 0.04, "nf4": 0.1}[form]
    for name, weight in exact.items():
        error = (numbers[name] - weight).norm() / weight.norm().clamp(min=1e-9)
        assert error <= (largest if name.removesuffix(".weight") in kept(own) else 0), name


@pytest.mark.parametrize(("form", "kept_as"), [("int8", ["int8"]), ("nf4", [])])
def test_a_weight_whose_rows_have_no_whole_blocks_stays_as_it_is(
    form: Any, kept_as: list[str], tmp_path: Path
) -> None:
    save_file({"blocks.0.weight": torch.randn(8, 96)}, tmp_path / "a.safetensors")
    block = nn.Linear(96, 8, bias=False, device="meta")
    module = nn.ModuleDict({"blocks": nn.ModuleList([block])})
    how = when_loaded.WhenLoaded(form, quantizes_inputs=True)
    key_map = {"blocks.0.weight": ("blocks.0.weight",)}
    with open_safetensors([tmp_path / "a.safetensors"], "transformer") as tensors:
        device = torch.device("cpu")
        fill(module, tensors, key_map, name="transformer", device=device, quantization=how)
    assert [form for forms in kept(module).values() for form in forms] == kept_as


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_the_bundled_model_draws_nearly_the_same(form: Any) -> None:
    params = SamplingParams(prompt="a red heart", seed=1)
    one, other = (run(quantized(BUNDLED, each), params).pixels for each in (form, None))
    assert decibels(one, other) >= 30


def test_unets_are_in_their_transformer_blocks(checkpoints: Checkpoints) -> None:
    pipeline = quantized(checkpoints("sd15"), "int8")
    unet = pipeline.denoiser_module
    layers = {name for name, each in unet.named_modules() if isinstance(each, nn.Linear)}
    wanted = {each for each in layers if "attentions" in each}
    assert kept(unet) == dict.fromkeys(wanted, ("int8",))
    assert not kept(pipeline.components["vae"])


def test_text_encoders_are_if_they_are_large(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints("flux-dev")
    small = quantized(folder, "int8")
    assert not kept(small.components["text_encoder_2"])
    t5 = small.components["text_encoder_2"]
    weights = sum(each.numel() for each in t5.parameters())
    monkeypatch.setattr(when_loaded, "LARGE_ENCODER", weights)
    components = quantized(folder, "int8").components
    layers = {name for name, each in t5.named_modules() if isinstance(each, nn.Linear)}
    assert kept(components["text_encoder_2"]).keys() == layers
    storages = [each for each in components["text_encoder_2"].modules() if hasattr(each, "form")]
    assert not any(each.quantizes_inputs for each in storages)
    assert not kept(components["vae"])


def test_what_is_quantised_already_keeps_its_form(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder, exact = (
        Path(shutil.copytree(checkpoints("flux-dev"), tmp_path / each))
        for each in ("kept", "exact")
    )
    rewrite(folder, "transformer", int8, plain, exact=exact)
    forms = kept(quantized(folder, "fp8").denoiser_module)
    assert {("int8",), ("float8_e4m3fn",)} <= set(forms.values())
    as_stored = kept(quantized(folder, None).denoiser_module)
    assert {name: forms[name] for name in as_stored if name in forms} == {
        name: own for name, own in as_stored.items() if name in forms
    }


def test_only_a_piece_of_the_numbers_exists_at_a_time(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_PIECE", 1024)
    pieces: list[int] = []
    real = when_loaded.quantized_rows

    def counted(numbers: torch.Tensor) -> Any:
        pieces.append(numbers.numel())
        return real(numbers)

    monkeypatch.setattr(when_loaded, "quantized_rows", counted)
    quantized(checkpoints("flux-dev"), "int8")
    assert len(pieces) > 10
    assert max(pieces) <= 1024


def test_they_draw_with_loras_on_ranks_that_share_a_sequence(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("flux-dev")
    stock = stock_pipeline(folder)
    keys = diffusers_keys("transformer", random_lora(stock.transformer, "attn ff"))
    write_lora(tmp_path / "a.safetensors", keys)
    call = {"width": 48, "height": 64, "num_inference_steps": 2}
    found = {}
    for num_gpus in (2, 1):
        options = {"model_path": str(folder), "lora_dir": str(tmp_path), "quantization": "int8"}
        with start_engine(num_gpus=num_gpus, **options) as engine:
            for lora in ("a:0.7", ()):
                result = submit_to(engine, **call, lora=lora).result(300)
                found[num_gpus, lora] = result.pixels.astype(int)
    assert np.abs(found[2, "a:0.7"] - found[1, "a:0.7"]).max() <= 1
    assert np.abs(found[1, ()] - found[1, "a:0.7"]).max() > 1


@pytest.mark.parametrize(
    ("name", "stored_as", "why"),
    [
        ("hunyuan-video", None, "no layer that is quantized has rows of a multiple of 64 numbers"),
        ("flux-schnell", "Q8_0", "its weights are Q8_0 already"),
    ],
)
def test_a_form_that_no_weight_has_is_said(
    name: str,
    stored_as: str | None,
    why: str,
    checkpoints: Checkpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, device = checkpoints(name), torch.device("cpu")
    file = write_gguf(tmp_path / "x.gguf", flux(folder), stored_as) if stored_as else None
    load_pipeline(
        folder, device=device, dtype=torch.float32, mesh=Mesh(), file=file, quantization="nf4"
    )
    assert f"quantization='nf4': no effect on transformer: {why}" in caplog.text


def test_a_form_that_weights_have_is_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    for form in get_args(Quantization):
        quantized(BUNDLED, form)
    assert "no effect" not in caplog.text
