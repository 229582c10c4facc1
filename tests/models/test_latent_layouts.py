"""Layouts of latents, and where a picture starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engineless import load

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.start.picture_start import flow_model_start, noise_model_start

Checkpoints = Callable[..., Path]

PARAMS = SamplingParams(prompt="a", width=96, height=64, num_frames=9)
GRIDS: dict[str, tuple[int, ...]] = {
    "sd15": (8, 12),
    "sd3": (4, 6),
    "flux-dev": (4, 6),
    "flux2-klein": (4, 6),
    "wan": (3, 4, 6),
    "ltx": (3, 8, 12),
    "cogvideox-1.5": (2, 4, 6),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_layout_knows_its_tokens(name: str, checkpoints: Checkpoints) -> None:
    layout = load(checkpoints(name)).layout
    assert layout.grid(PARAMS) == GRIDS[name]
    assert layout.tokens(PARAMS) == torch.Size(GRIDS[name]).numel()


@pytest.mark.parametrize("name", GRIDS)
def test_what_is_packed_is_unpacked_to_the_frames_that_are_decoded(
    name: str, checkpoints: Checkpoints
) -> None:
    layout = load(checkpoints(name)).layout
    latents = torch.randn(1, *layout.shape(PARAMS))
    unpacked = layout.unpack(layout.pack(latents), PARAMS)
    decoded = latents if latents.dim() == 4 else latents[:, :, -layout.frames(PARAMS) :]
    assert torch.equal(unpacked, decoded)


@pytest.mark.parametrize("name", GRIDS)
def test_noise_is_as_the_denoiser_takes_latents(name: str, checkpoints: Checkpoints) -> None:
    layout = load(checkpoints(name)).layout
    noise = layout.noise(PARAMS, torch.Generator().manual_seed(0))
    assert noise.shape == layout.pack(torch.empty(1, *layout.shape(PARAMS))).shape


@pytest.mark.parametrize(
    ("strength", "of_noise", "of_flow"), [(0.0, 7, 7), (0.1, 7, 6), (0.6, 3, 2), (1.0, 0, 0)]
)
def test_what_is_left_of_seven_steps_is_rounded_down_for_noise_and_up_for_flows(
    strength: float, of_noise: int, of_flow: int
) -> None:
    assert noise_model_start(7, strength) == of_noise
    assert flow_model_start(7, strength) == of_flow
