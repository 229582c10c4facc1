"""VAE wrappers: no tensors of their own, chunks that make the whole, weights that may move."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engineless import finish, left, load, start
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.models.vaes.vae import VAE

Checkpoints = Callable[..., Path]

PICTURES = ("sd15", "sana", "flux2-klein", "qwenimage")
VIDEOS = ("wan", "ltx", "ltx2", "hunyuan-video", "cogvideox")
NAMES = PICTURES + VIDEOS
ENCODERS = tuple(name for name in NAMES if name != "sana")  # pictures start nothing there


Load = Callable[[str], VAE]


@pytest.fixture
def vae_of(checkpoints: Checkpoints) -> Load:
    return lambda name: load(checkpoints(name)).vae


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        return [tensor for each in value for tensor in tensors_in(each)]
    if isinstance(value, torch.nn.Module) or not hasattr(value, "__dict__"):
        return []
    return tensors_in(vars(value))


def pixels_for(name: str, vae: VAE) -> Tensor:
    frames = (vae.frame_multiple + 1,) if name in VIDEOS else ()
    return torch.rand((1, 3, *frames, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapper_that_was_just_made_holds_no_tensor(name: str, vae_of: Load) -> None:
    assert tensors_in(vae_of(name)) == []


@pytest.mark.parametrize("name", ENCODERS)
@torch.inference_mode()
def test_encoded_pixels_have_the_shape_that_the_geometry_says(name: str, vae_of: Load) -> None:
    vae = vae_of(name)
    pixels = pixels_for(name, vae)
    latents = vae.encode(pixels)
    frames = pixels.shape[2] if name in VIDEOS else None
    assert latents.shape == (1, *vae.latent_shape(64, 64, frames))


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_wrapper_follows_its_module_where_that_goes(name: str, vae_of: Load) -> None:
    vae = vae_of(name)
    frames = vae.frame_multiple + 1 if name in VIDEOS else None
    latents = torch.ones(1, *vae.latent_shape(64, 64, frames))
    before, _ = vae.decode(latents)
    vae._module.to(torch.float64)
    elsewhere, _ = vae.decode(latents.double())
    vae._module.to(torch.float32)
    after, _ = vae.decode(latents)
    assert (elsewhere.int() - before.int()).abs().max() <= 1
    assert torch.equal(after, before)


@pytest.mark.parametrize("name", ENCODERS)
@torch.inference_mode()
def test_latents_are_drawn_by_the_generator_and_the_mode_without(name: str, vae_of: Load) -> None:
    vae = vae_of(name)
    pixels = pixels_for(name, vae)
    drawn, again = (vae.encode(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    mode, same_mode = vae.encode(pixels), vae.encode(pixels)
    assert torch.equal(drawn, again)
    assert torch.equal(mode, same_mode)
    assert not torch.equal(drawn, mode)


@pytest.mark.parametrize(("name", "frames"), [("hunyuan-video", 29), ("cogvideox", 17)])
def test_two_videos_take_turns_in_decoding(
    name: str, frames: int, checkpoints: Checkpoints
) -> None:
    pipeline = load(checkpoints(name))
    params = SamplingParams(
        prompt="a dog", width=32, height=32, num_frames=frames, num_inference_steps=1
    )
    states = [start(pipeline, params.updated(seed=seed)) for seed in (0, 1)]
    for state in states:
        pipeline.forward(Phase.DENOISE, [state], left(state))
    expected = [finish(pipeline, state).pixels for state in states]
    chunks = len(states[0].chunks)
    for state in states:
        state.chunks, state.decoded, state.shared = [], 0, None
    for _ in range(chunks):
        for state in states:
            pipeline.forward(Phase.DECODE, [state], 1)
    assert chunks > 1
    for state, pixels in zip(states, expected, strict=True):
        assert np.array_equal(torch.cat(state.chunks).numpy(), pixels)
