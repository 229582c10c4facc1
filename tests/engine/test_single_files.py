"""A single file gives what the folder gives that it was made from."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from denoisers import differences, load_denoiser
from engineless import run
from full_checkpoints import flux_with_encoders, sd2, sd3_with_encoders, sd15, sdxl, unet
from mapped_files import mapped
from parity import check_same_picture
from single_files import (
    COMFY,
    ORIGINAL,
    Tensors,
    flux,
    gguf_writer,
    prefixed,
    requantised,
    weights,
    write,
    write_gguf,
)
from tried_forms import DIFFUSERS_NAMES, GGUF, WITH_FILES

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.single_file import recognise
from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.loader.tensors.gguf_file import gguf_tensors
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline

Checkpoints = Callable[..., Path]
SMALL = SamplingParams(prompt="a red heart", width=32, height=48, num_inference_steps=2)


def load(folder: Path, file: Path | None, dtype: torch.dtype = torch.float32) -> ComposedPipeline:
    return load_pipeline(folder, device=torch.device("cpu"), dtype=dtype, mesh=Mesh(), file=file)


@pytest.fixture
def folder(checkpoints: Checkpoints) -> Path:
    return checkpoints("flux-schnell")


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of the test's own, without the denoiser's weights."""
    own = Path(shutil.copytree(folder, tmp_path / "base"))
    for path in (own / "transformer").glob("*.safetensors"):
        path.unlink()
    return own


@pytest.mark.parametrize("prefix", ["", COMFY, "model.model."], ids=["bare", "comfy", "model"])
@pytest.mark.parametrize("name", ORIGINAL)
def test_a_denoiser_under_its_authors_names_is_the_folders(
    name: str, prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "model.safetensors", prefixed(ORIGINAL[name](folder), prefix))
    assert differences(load_denoiser(folder), load_denoiser(folder, file)) == []


@pytest.mark.parametrize("name", DIFFUSERS_NAMES)
def test_a_denoiser_under_diffusers_names_is_the_folders(
    name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    component = "unet" if (folder / "unet").is_dir() else "transformer"
    file = write(tmp_path / "model.sft", weights(folder, component))
    assert differences(load_denoiser(folder), load_denoiser(folder, file)) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sd15", sd15),
        ("sd15", sd2),
        ("sdxl", sdxl),
        ("sd3", sd3_with_encoders),
        ("flux-dev", flux_with_encoders),
    ],
)
def test_a_full_checkpoint_has_text_encoders_and_vae_too(
    name: str,
    make: Callable[[Path], Tensors],
    dtype: torch.dtype,
    checkpoints: Checkpoints,
    tmp_path: Path,
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "full.safetensors", make(folder))
    empty = Path(shutil.copytree(folder, tmp_path / "base"))
    for path in empty.glob("*/*.safetensors"):
        path.unlink()
    whole, single = load(folder, None, dtype), load(empty, file, dtype)
    for component, module in whole.components.items():
        if isinstance(module, torch.nn.Module):
            assert differences(module, single.components[component]) == []


def test_a_file_draws_the_folders_picture(folder: Path, own_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "flux.safetensors", flux(folder))
    whole, single = load(folder, None), load(own_folder, file)
    check_same_picture(run(whole, SMALL), run(single, SMALL))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_file_has_in_one_piece_stays_in_it(folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "flux.safetensors", flux(folder))
    denoiser = load_denoiser(folder, file)
    spans = mapped(file)
    in_file = {
        name
        for name, parameter in denoiser.named_parameters()
        if any(parameter.data_ptr() in span for span in spans)
    }
    assert "blocks.0.image.qkv.weight" in in_file  # which a folder has in three
    assert "blocks.0.modulation.weight" not in in_file  # joined from image and text
    last = len(denoiser.blocks) - 1
    assert {f"blocks.{last}.qkv_mlp.weight", f"blocks.{last}.modulation.weight"} <= in_file


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_other_precisions_are_cast(stored: torch.dtype, folder: Path, tmp_path: Path) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in weights(folder).items()}
    rounded = {name: tensor.float() for name, tensor in tensors.items()}
    low = load_denoiser(folder, write(tmp_path / "low.safetensors", tensors))
    full = load_denoiser(folder, write(tmp_path / "full.safetensors", rounded))
    assert differences(low, full) == []


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("by_row", [False, True], ids=["one scale", "a scale a row"])
def test_scales_of_float8_weights_are_multiplied_in(
    suffix: str, by_row: bool, folder: Path, tmp_path: Path
) -> None:
    scaled, exact = {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}, {}
    for name, tensor in flux(folder).items():
        scaled[name] = exact[name] = tensor
        if tensor.dim() == 2:
            largest = tensor.abs().amax(dim=1, keepdim=True) if by_row else tensor.abs().max()
            scale = largest / 448
            scaled[name] = (tensor / scale).to(torch.float8_e4m3fn)
            module = name.removesuffix(".weight")
            scaled[f"{module}.{suffix}"] = scale
            scaled[f"{module}.input_scale"] = torch.ones(())
            exact[name] = scaled[name].float() * scale
    file = write(tmp_path / "scaled.safetensors", prefixed(scaled, COMFY))
    expected = write(tmp_path / "exact.safetensors", exact)
    assert differences(load_denoiser(folder, file), load_denoiser(folder, expected)) == []


def test_scales_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    scale = {"img_in.scale_weight": torch.ones(3)}
    file = write(tmp_path / "scaled.safetensors", flux(folder) | scale)
    with pytest.raises(InvalidCheckpoint, match=r"img_in\.scale_weight: F32 \[3\] must be one"):
        load_denoiser(folder, file)


def test_numbers_that_no_layer_has_are_named(folder: Path, tmp_path: Path) -> None:
    extra = {"double_blocks.0.img_attn.proj.bias_scale": torch.ones(())}
    file = write(tmp_path / "x.safetensors", flux(folder) | extra)
    with pytest.raises(InvalidCheckpoint, match=r"unexpected: .*img_attn\.proj\.bias_scale"):
        load_denoiser(folder, file)


def test_whole_numbers_are_no_weights(folder: Path, tmp_path: Path) -> None:
    tensors = flux(folder)
    tensors["img_in.weight"] = tensors["img_in.weight"].to(torch.uint8)
    file = write(tmp_path / "nf4.safetensors", tensors)
    with pytest.raises(InvalidCheckpoint, match=r"quantised\?\): x_embedder\.weight U8"):
        load_denoiser(folder, file)


@pytest.mark.parametrize("names", [flux, weights], ids=["original", "diffusers"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_gguf_is_the_folder_within_its_quantisation(
    kind: str, names: Callable[[Path], Tensors], folder: Path, tmp_path: Path
) -> None:
    tensors = names(folder)
    file = write_gguf(tmp_path / "model.gguf", tensors, kind)
    left = {name: requantised(tensor, kind) for name, tensor in tensors.items()}
    expected = write(tmp_path / "left.safetensors", left)
    assert differences(load_denoiser(folder, file), load_denoiser(folder, expected)) == []


def without_leading_ones(tensor: torch.Tensor) -> torch.Tensor:
    """As llama.cpp's own tool writes a tensor."""
    while tensor.dim() > 1 and len(tensor) == 1:
        tensor = tensor[0]
    return tensor


def test_every_family_with_single_files_is_tried() -> None:
    assert GGUF.keys() == WITH_FILES


@pytest.mark.parametrize("family", GGUF)
def test_every_style_of_every_family_loads_from_gguf(
    family: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(GGUF[family])
    component = "unet" if (folder / "unet").is_dir() else "transformer"
    original = {**ORIGINAL, "flux-kontext": flux, "flux-fill": flux, "sd15": unet, "sdxl": unet}
    whole = load_denoiser(folder)
    for layout in family_called(family).single_files:
        if layout.style == "original":
            tensors = original[GGUF[family]](folder)
        else:
            tensors = weights(folder, component)
        kept = {name: without_leading_ones(tensor) for name, tensor in tensors.items()}
        file = write_gguf(tmp_path / f"{layout.style}.gguf", kept)
        found = recognise(file)
        assert family in {each.name for each in (found.family, *found.alike)}
        assert found.layout.style == layout.style
        assert differences(whole, load_denoiser(folder, file)) == []


def family_called(name: str) -> FamilyConfig:
    return next(family for family in FAMILIES if family.name == name)


K_QUANTS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]


@pytest.mark.parametrize("kind", K_QUANTS)
def test_k_quants_are_dequantised_row_by_row(kind: str, tmp_path: Path) -> None:
    quantisation = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantisation]
    blocks = np.random.default_rng(0).integers(0, 60, (4, 512 // block * size), np.uint8)
    with gguf_writer(tmp_path / "k.gguf") as writer:
        writer.add_tensor("x", blocks, raw_dtype=quantisation)
    stored = gguf_tensors(read_header(tmp_path / "k.gguf"))["x"]
    whole = torch.from_numpy(gguf.quants.dequantize(blocks, quantisation))
    assert stored.shape == (4, 512)
    assert torch.equal(stored.rows(0, 4), whole)
    assert torch.equal(stored.rows(1, 3), whole[1:3])


def test_what_comfyui_flattened_has_its_own_shape_again(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(numbers.reshape(-1, 32), kind)
    with gguf_writer(tmp_path / "flat.gguf") as writer:
        writer.add_array("comfy.gguf.orig_shape.x", [8, 4, 3, 3])
        writer.add_tensor("x", blocks, raw_dtype=kind)
    stored = gguf_tensors(read_header(tmp_path / "flat.gguf"))["x"]
    assert stored.shape == (8, 4, 3, 3)
    whole = torch.from_numpy(gguf.quants.dequantize(blocks, kind)).reshape(8, 4, 3, 3)
    assert torch.equal(stored.rows(0, 8), whole)
    assert torch.equal(stored.rows(3, 5), whole[3:5])
