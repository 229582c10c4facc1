"""The tiny checkpoints load offline, are the same everywhere, and react to every input."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from places import HELPERS
from safetensors import safe_open
from tiny_checkpoints import NAMES, Reference, build, reference, stock_pipeline
from tiny_checkpoints.families import CHECKPOINTS
from tiny_checkpoints.schedulers import SD15

Checkpoints = Callable[[str], Path]

NOTICEABLE = 2.0  # mean absolute difference of uint8 pixels

TRUE_CFG = {"negative_prompt": "blurry", "true_cfg_scale": 3.0}
CHANGES: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "a blue dog"},
    "seed": {"seed": 1},
    "steps": {"num_inference_steps": 2},
    "guidance": {"guidance_scale": 2.0},
    "negative prompt": {"negative_prompt": "blurry"},
    "true guidance": TRUE_CFG,
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    folder = tmp_path_factory.mktemp("checkpoints")

    def get(name: str) -> Path:
        return folder / name if (folder / name).exists() else build(name, folder / name)

    return get


def run(folder: Path, **changes: Any) -> Reference:
    """Folders with other names than their checkpoints' are of some that need nothing besides."""
    call = {"prompt": "a red heart", "height": 64, "width": 96, "num_inference_steps": 3}
    own = CHECKPOINTS[folder.name].call if folder.name in CHECKPOINTS else {}
    return reference(folder, **{**call, **own, **changes})


def difference(a: Reference, b: Reference) -> float:
    return float(np.abs(a.images.astype(int) - b.images.astype(int)).mean())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_two_builds_are_equal_byte_for_byte(
    name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    assert contents(build(name, tmp_path)) == contents(checkpoints(name))


def test_a_build_in_another_process_is_equal_byte_for_byte(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    script = (
        "import sys, pathlib; from tiny_checkpoints import build; "
        "build('flux-dev', pathlib.Path(sys.argv[1]))"
    )
    path = os.pathsep.join([str(HELPERS), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
    assert contents(tmp_path) == contents(checkpoints("flux-dev"))


def test_the_seed_draws_other_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    weights = "transformer/diffusion_pytorch_model.safetensors"
    other = build("flux-dev", tmp_path, seed=1)
    assert (other / weights).read_bytes() != (checkpoints("flux-dev") / weights).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_rerun_gives_the_same_bits(name: str, checkpoints: Checkpoints) -> None:
    first, second = run(checkpoints(name)), run(checkpoints(name))
    assert torch.equal(first.latents, second.latents)
    assert np.array_equal(first.images, second.images)


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name in NAMES for change in CHECKPOINTS[name].inputs]
)
def test_every_input_changes_the_picture_noticeably(
    name: str, change: str, checkpoints: Checkpoints
) -> None:
    folder = checkpoints(name)
    assert difference(run(folder), run(folder, **CHANGES[change])) > NOTICEABLE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(96, 64), (64, 160)])
def test_sizes_need_not_be_square(
    name: str, height: int, width: int, checkpoints: Checkpoints
) -> None:
    images = run(checkpoints(name), height=height, width=width, num_inference_steps=2).images
    own = CHECKPOINTS[name].call
    frames = own.get("num_frames", own.get("video_length"))
    outputs = (1,) if frames is None else (1, frames)
    assert images.shape == (*outputs, height, width, 3)
    assert images.std() > 10


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["flux-dev", "sd15", "sdxl", "wan"])
def test_latents_are_those_of_the_latent_output_type(name: str, checkpoints: Checkpoints) -> None:
    folder = checkpoints(name)
    call = {"height": 64, "width": 96, "num_inference_steps": 3, "output_type": "latent"}
    call |= CHECKPOINTS[name].call
    generator = torch.Generator().manual_seed(7)
    output = stock_pipeline(folder)("a red heart", generator=generator, return_dict=False, **call)
    assert torch.equal(run(folder, seed=7).latents, output[0])


def test_each_output_of_a_request_has_its_own_seed(checkpoints: Checkpoints) -> None:
    folder = checkpoints("flux-dev")
    both = run(folder, seed=4, num_images_per_prompt=2)
    second = run(folder, seed=5)
    assert np.abs(both.images[1].astype(int) - second.images[0]).max() <= 1


def test_a_reference_with_another_scheduler_leaves_the_own_one_in_place(
    checkpoints: Checkpoints,
) -> None:
    folder = checkpoints("sd15")
    before = run(folder)
    ddim = DDIMScheduler.from_config(SD15, clip_sample=False)
    assert difference(before, run(folder, scheduler=ddim)) > NOTICEABLE
    assert difference(before, run(folder)) == 0


@pytest.mark.parametrize("heads", [3, 6])
def test_flux_takes_other_head_counts(heads: int, tmp_path: Path) -> None:
    folder = build("flux-schnell", tmp_path, heads=heads)
    assert stock_pipeline(folder).transformer.config.num_attention_heads == heads
    assert run(folder).images.std() > 10


def test_the_scheduler_config_can_be_replaced(tmp_path: Path) -> None:
    config = {
        "_class_name": "DDIMScheduler",
        "clip_sample": False,
        "prediction_type": "v_prediction",
        "steps_offset": 1,
    }
    scheduler = stock_pipeline(build("sd15", tmp_path, scheduler=config)).scheduler
    assert type(scheduler).__name__ == config["_class_name"]
    assert scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(("name", "denoiser"), [("flux-dev", "transformer"), ("sdxl", "unet")])
def test_shards_hold_the_same_weights(
    name: str, denoiser: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = build(name, tmp_path, shard_bytes="300KB")
    assert (folder / denoiser / "diffusion_pytorch_model.safetensors.index.json").exists()
    assert len(list((folder / denoiser).glob("*.safetensors"))) > 1
    assert difference(run(folder), run(checkpoints(name))) == 0


def test_a_variant_is_in_the_file_names_and_half_precision(tmp_path: Path) -> None:
    folder = build("flux-dev", tmp_path, dtype=torch.float16, variant="fp16")
    files = list(folder.rglob("*.safetensors"))
    assert len(files) == 4
    assert all(file.name.endswith(".fp16.safetensors") for file in files)
    for file in files:
        with safe_open(file, framework="pt") as weights:
            dtypes = {weights.get_slice(name).get_dtype() for name in weights.offset_keys()}
        assert dtypes == {"F16"}
    assert run(folder).images.std() > 10


def test_a_sharded_variant_loads(tmp_path: Path) -> None:
    folder = build("flux-dev", tmp_path, dtype=torch.float16, variant="fp16", shard_bytes="300KB")
    assert len(list((folder / "transformer").glob("*.fp16-*.safetensors"))) > 1
    assert run(folder).images.std() > 10
