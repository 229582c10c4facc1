"""Videos of LTX-2 in two stages: latents are enlarged, and denoised once more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplePipeline
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from engineless import finish, left, load, start
from engines import start_engine, submit_to
from parity import LATENTS, PIXELS, SOUND, pixels_apart, relative
from safetensors.torch import save_file
from tiny_checkpoints import Reference, reference, stock_pipeline, weights
from tiny_checkpoints.families.ltx2 import CHANNELS, SKIPPING
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

Checkpoints = Callable[..., Path]
SIZE = {"width": 64, "height": 32}
CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "num_frames": 9,
    "max_sequence_length": 32,
}
MODELS: dict[str, dict[str, Any]] = {
    "by-2": {},
    "by-1.5": {"rational_spatial_scale": 1.5, "dims": 2},
    "plain": {"use_rational_resampler": False, "num_blocks_per_stage": 2},
}
FIRST, AGAIN, STRENGTH = 3, 4, 0.5


def upsampler(name: str, channels: int = CHANNELS) -> LTX2LatentUpsamplerModel:
    config = {"mid_channels": 32, "num_blocks_per_stage": 1, **MODELS[name]}
    model = LTX2LatentUpsamplerModel(in_channels=channels, **config)
    weights.fill(model, name, 0, torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("upsamplers")
    for name in MODELS:
        save_file(upsampler(name).state_dict(), made / f"{name}.safetensors")
    save_file(upsampler("by-2", 8).state_dict(), made / "other.safetensors")
    cut = {k: v for k, v in upsampler("by-2").state_dict().items() if "final" not in k}
    save_file(cut, made / "cut.safetensors")
    return made


@pytest.fixture(scope="module")
def opened(checkpoints: Checkpoints, folder: Path) -> Callable[[str], ComposedPipeline]:
    loaded: dict[str, ComposedPipeline] = {}

    def get(name: str) -> ComposedPipeline:
        if name not in loaded:
            loaded[name] = load(checkpoints(name))
            loaded[name].upscalers.open(str(folder))
        return loaded[name]

    return get


def two_stages(pipeline: ComposedPipeline, params: SamplingParams) -> tuple[RequestState, Any]:
    first = start(pipeline, params)
    pipeline.forward(Phase.DENOISE, [first], left(first))
    pipeline.forward(Phase.DECODE, [first], 1)
    second = first.second
    assert second is not None
    assert first.chunks == []
    pipeline.forward(Phase.DENOISE, [second], left(second))
    return second, finish(pipeline, second)


def in_diffusers(folder: Path, model: str, factor: float, size: dict[str, int]) -> Reference:
    stock = stock_pipeline(folder)
    call = {**CALL, **SKIPPING}
    seed = torch.Generator().manual_seed(0)
    made = stock(**call, **size, num_inference_steps=FIRST, generator=seed, output_type="latent")
    enlarge = LTX2LatentUpsamplePipeline(stock.vae, upsampler(model))
    enlarge.set_progress_bar_config(disable=True)
    larger = enlarge(latents=made.frames, **size, num_frames=9, output_type="latent").frames
    sides = {name: int(side * factor) for name, side in size.items()}
    stock.scheduler.set_timesteps(sigmas=np.linspace(1, 1 / AGAIN, AGAIN), mu=_mu(stock, sides))
    return reference(
        folder,
        **call,
        **sides,
        latents=larger,
        audio_latents=made.audio,
        sigmas=np.linspace(1, 1 / AGAIN, AGAIN)[AGAIN // 2 :],
        noise_scale=float(stock.scheduler.sigmas[AGAIN // 2]),
        num_inference_steps=AGAIN // 2,
    )


def _mu(stock: Any, sides: dict[str, int]) -> float:
    config, tokens = stock.scheduler.config, 3 * (sides["width"] // 8) * (sides["height"] // 8)
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    return float(config.base_shift + slope * (tokens - config.base_image_seq_len))


@pytest.mark.parametrize(
    ("name", "model", "factor"),
    [("ltx2", "by-2", 2), ("ltx2.3", "plain", 2), ("ltx2.3", "by-1.5", 1.5)],
)
def test_two_stages_equal_diffusers(
    name: str,
    model: str,
    factor: float,
    opened: Callable[[str], ComposedPipeline],
    checkpoints: Checkpoints,
) -> None:
    size = SIZE if factor == 2 else {"width": 64, "height": 64}
    upscale = {"model": model, "factor": factor, "strength": STRENGTH, "steps": AGAIN}
    given = {**CALL, **size, "num_inference_steps": FIRST, "seed": 0, "upscale": upscale}
    second, ours = two_stages(opened(name), SamplingParams.from_fields(**given))
    assert second.params.width == int(size["width"] * factor)
    theirs = in_diffusers(checkpoints(name), model, factor, size)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    assert theirs.audio is not None
    assert np.abs(ours.sound - np.asarray(theirs.audio)).max() <= SOUND


@pytest.mark.parametrize(
    ("upscale", "said"),
    [
        ("by-2@2", "enlarges latents, so it needs a strength"),
        ("by-2@3:0.5", "factor must be 2"),
        ("other@2:0.5", "must be for latents of 16 channels, not 8"),
        ("cut@2:0.5", "can't be loaded: final_conv"),
        ("2:0.5", "must name a model that enlarges latents"),
        ("by-2@2:1.5", "strength must be more than 0, at most 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    upscale: str, said: str, opened: Callable[[str], ComposedPipeline]
) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        start(opened("ltx2"), SamplingParams(**CALL, **SIZE, upscale=upscale))
    assert refused.value.field == "upscale"


def test_given_frames_are_not_combined_with_it(opened: Callable[[str], ComposedPipeline]) -> None:
    params = SamplingParams(**CALL, **SIZE, upscale="by-2@2:0.5")
    with pytest.raises(InvalidRequest, match="can't be combined with pictures"):
        start(opened("ltx2"), params, {"image": np.asarray(picture(64, 32))})


def test_other_families_refuse_it(
    opened: Callable[[str], ComposedPipeline],
) -> None:
    params = SamplingParams(prompt="x", width=64, height=64, upscale="by-2@2")
    with pytest.raises(InvalidRequest, match="enlarges latents of another model"):
        start(opened("flux-dev"), params)


def test_the_checkpoints_own_model_need_not_be_named(
    opened: Callable[[str], ComposedPipeline], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    upsampler("by-2").save_pretrained(tmp_path / "latent_upsampler")
    own = load(checkpoints("ltx2"))
    own.upscalers.look_into(tmp_path)
    assert own.model_info("test").upscale_ways == ("latents",)
    given = SamplingParams(**CALL, **SIZE, seed=0, num_inference_steps=FIRST)
    _, named = two_stages(opened("ltx2"), given.updated(upscale=f"by-2@2:{STRENGTH}:{AGAIN}"))
    _, carried = two_stages(own, given.updated(upscale=f"2:{STRENGTH}:{AGAIN}"))
    assert np.array_equal(named.pixels, carried.pixels)


def test_its_neighbours_change_nothing(opened: Callable[[str], ComposedPipeline]) -> None:
    """A first and a second pass share an evaluation with a plain request of their size."""
    pipeline = opened("ltx2")
    params = SamplingParams(**CALL, **SIZE, seed=0, num_inference_steps=FIRST)
    upscaled = params.updated(upscale=f"by-2@2:{STRENGTH}:{AGAIN}")
    _, alone = two_stages(pipeline, upscaled)
    first, plain = start(pipeline, upscaled), start(pipeline, params)
    pipeline.forward(Phase.DENOISE, [first, plain], FIRST)
    pipeline.forward(Phase.DECODE, [first, plain], 1)
    assert first.second is not None
    pipeline.forward(Phase.DENOISE, [first.second], left(first.second))
    together = finish(pipeline, first.second)
    assert np.abs(together.pixels.astype(int) - alone.pixels).max() <= PIXELS


@pytest.mark.slow
def test_two_ranks_make_the_same_video(
    opened: Callable[[str], ComposedPipeline], checkpoints: Checkpoints, folder: Path
) -> None:
    given = {**CALL, **SIZE, "seed": 0, "num_inference_steps": FIRST}
    given["upscale"] = f"by-2@2:{STRENGTH}:{AGAIN}"
    _, alone = two_stages(opened("ltx2"), SamplingParams(**given))
    model = {"model_path": str(checkpoints("ltx2")), "upscaler_dir": str(folder)}
    with start_engine(**model, num_gpus=2) as engine:
        ours = submit_to(engine, **given).result(200)
    assert np.abs(ours.pixels.astype(int) - alone.pixels).max() <= PIXELS
    assert alone.sound is not None
    assert ours.audio is not None
    assert np.abs(ours.audio - alone.sound).max() <= SOUND
    assert len(ours.batch_sizes) == FIRST + int(AGAIN * STRENGTH)
