"""PixArt-Sigma, Sana, HunyuanVideo, LTX-Video and CogVideoX give what diffusers' pipelines give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from engineless import Output, load, run, run_joined, start
from parity import check_parity
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.models.vaes.ltx import LTXVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 32,
    "width": 64,
    "num_inference_steps": 3,
}
AS_ASKED = {"use_resolution_binning": False, "clean_caption": False}
"""The size and the text."""
STOCK: dict[str, dict[str, Any]] = {"pixart-sigma": AS_ASKED, "sana": AS_ASKED}
VIDEO = {**CALL, "num_frames": 5}
COGVIDEOX = {"max_sequence_length": 24}
LONG = {"prompt": "a big RED cat, “riding” &amp; flying " * 40}
GUIDED = {"negative_prompt": "blurry", "true_cfg_scale": 3.0, "num_frames": 5}

PICTURES: list[dict[str, Any]] = [
    {"seed": 3},
    {"negative_prompt": "Blurry, low quality"},
    {"guidance_scale": 1.0, "height": 96, "width": 32},
    {**LONG, "max_sequence_length": 40},
]
VIDEOS: list[dict[str, Any]] = [
    {"num_frames": 9, "negative_prompt": "blurry"},
    {"num_frames": 1, "guidance_scale": 1.0},
    {"num_frames": 13, "height": 64, "width": 32, "seed": 5},
]
CASES: dict[str, list[dict[str, Any]]] = {
    "pixart-sigma": [*PICTURES, {"height": 80, "width": 48}],
    "sana": PICTURES,
    "hunyuan-video": [
        *VIDEOS,
        GUIDED,
        {**LONG, "num_frames": 1, "max_sequence_length": 40},
        {"num_frames": 17, "height": 48, "num_inference_steps": 1},
        {"num_frames": 29, "width": 16, "num_inference_steps": 1},
    ],
    "ltx": [*VIDEOS, {**LONG, "num_frames": 5}],
    "ltx-0.9.1": VIDEOS[:1],
    "cogvideox": [{**COGVIDEOX, **case} for case in VIDEOS],
    "cogvideox-5b": [{**COGVIDEOX, **case} for case in (*VIDEOS, {**LONG, "num_frames": 5})],
    "cogvideox-1.5": [{**COGVIDEOX, **case} for case in VIDEOS],
}
CALL_OF: dict[str, dict[str, Any]] = {
    "pixart-sigma": CALL,
    "sana": CALL,
    "hunyuan-video": VIDEO,
    "ltx": VIDEO,
    **{name: {**VIDEO, **COGVIDEOX} for name in ("cogvideox", "cogvideox-5b", "cogvideox-1.5")},
}


@pytest.fixture(scope="module")
def pipelines(checkpoints: Checkpoints) -> Callable[[str], ComposedPipeline]:
    loaded: dict[str, ComposedPipeline] = {}

    def get(name: str) -> ComposedPipeline:
        if name not in loaded:
            loaded[name] = load(checkpoints(name))
        return loaded[name]

    return get


Pipelines = Callable[[str], ComposedPipeline]


@pytest.mark.parametrize(
    ("name", "change"),
    [(name, change) for name, cases in CASES.items() for change in cases],
    ids=lambda given: given if isinstance(given, str) else ",".join(given),
)
def test_the_family_equals_diffusers(
    name: str, change: dict[str, Any], pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    call = {**CALL, **change}
    check_parity(pipelines(name), checkpoints(name), stock_call=STOCK.get(name), **call)


@pytest.mark.parametrize(
    ("name", "solver", "view"),
    [
        ("pixart-sigma", "ddim", View.NOISE),
        ("sana", "unipc", View.FLOW),
        ("hunyuan-video", "unipc", View.FLOW),
        ("ltx", "unipc", View.FLOW),
        ("cogvideox", "cogvideox_dpm", View.SHIFTED_NOISE),
        ("cogvideox-5b", "cogvideox_ddim", View.SHIFTED_NOISE),
    ],
)
def test_the_family_with_another_solver_equals_diffusers(
    name: str, solver: str, view: View, pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    stock = {"solver": solver, "view": view, "stock_call": STOCK.get(name)}
    check_parity(pipelines(name), checkpoints(name), **stock, **CALL_OF[name])


def test_the_frame_rate_is_an_input_of_ltx(pipelines: Pipelines, checkpoints: Checkpoints) -> None:
    pipeline = pipelines("ltx")
    check_parity(pipeline, checkpoints("ltx"), **CALL, num_frames=9, stock_call={"frame_rate": 25})
    params = SamplingParams(**CALL, num_frames=9)
    assert apart(run(pipeline, params), run(pipeline, params.updated(fps=8))) > 1


@pytest.mark.parametrize("name", ["ltx", "ltx-0.9.1"])
@pytest.mark.parametrize(
    "change",
    [{"negative_prompt": "blurry"}, {"guidance_scale": 1.0, "num_frames": 9, "seed": 5}],
    ids=lambda change: ",".join(change),
)
def test_ltx_goes_on_from_a_picture_as_diffusers_does(
    name: str, change: dict[str, Any], pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    call = {**VIDEO, "image": picture(70, 90), **change}
    check_parity(
        pipelines(name), checkpoints(name), stock=diffusers.LTXImageToVideoPipeline, **call
    )


@pytest.mark.parametrize("name", ["pixart-sigma", "sana", "hunyuan-video", "ltx", "cogvideox-1.5"])
def test_requests_that_share_a_batch_give_what_they_give_alone(
    name: str, pipelines: Pipelines
) -> None:
    pipeline = pipelines(name)
    call = {**CALL_OF[name], "height": 32, "width": 32}
    negative = {**LONG, "negative_prompt": "a dog", "num_inference_steps": 2}
    if name == "hunyuan-video":
        negative["true_cfg_scale"] = 2.0
    requests = [
        SamplingParams(**{**call, "seed": 1}),
        SamplingParams(**{**call, **negative, "seed": 2}),
        SamplingParams(**{**call, "guidance_scale": 1.0, "seed": 3}),
    ]
    alone = [run(pipeline, params) for params in requests]
    together = run_joined(pipeline, requests, joins=[0, 1, 0])
    for one, other in zip(alone, together, strict=True):
        assert apart(one, other) <= 1


@pytest.mark.parametrize("name", ["pixart-sigma", "sana", "hunyuan-video", "ltx", "cogvideox-1.5"])
def test_a_preview_is_a_small_picture(name: str, pipelines: Pipelines) -> None:
    pipeline = pipelines(name)
    state = start(pipeline, SamplingParams(**CALL_OF[name]), previews=True)
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert state.preview is not None
    height, width, channels = state.preview.shape
    assert channels == 3
    assert 0 < height < width <= 256


@pytest.mark.parametrize(
    "noise",
    [{"decode_timestep": 0.05, "decode_noise_scale": 0.025}, {"decode_timestep": 0.3}],
    ids=lambda noise: ",".join(noise),
)
def test_ltx_decodes_with_noise_as_diffusers_does(
    noise: dict[str, float], pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    pipeline, folder = pipelines("ltx-0.9.1"), checkpoints("ltx-0.9.1")
    check_parity(pipeline, folder, **VIDEO, own_call=noise, stock_call=noise)
    plain, noisy = (run(pipeline, SamplingParams(**VIDEO, **each)) for each in ({}, noise))
    assert apart(plain, noisy) > 1


def test_a_decoder_that_is_told_no_noise_level_has_no_such_parameter(pipelines: Pipelines) -> None:
    told, plain = (pipelines(name).model_info("test") for name in ("ltx-0.9.1", "ltx"))
    assert {"decode_timestep", "decode_noise_scale"} <= set(told.parameters)
    assert {"decode_timestep", "decode_noise_scale"}.isdisjoint(plain.parameters)


def test_the_noise_that_an_ltx_decoder_draws_is_the_requests_own(pipelines: Pipelines) -> None:
    own = pipelines("ltx-0.9.1").components["vae"].config
    config = {**own, "decoder_inject_noise": (True, True, True)}
    vae: Any = diffusers.AutoencoderKLLTXVideo.from_config(config)
    for name, parameter in vae.named_parameters():
        if "per_channel_scale" in name:
            parameter.data += 1
    wrapper, latents = LTXVAE(vae.requires_grad_(False)), torch.ones(1, 16, 2, 4, 4)
    before = torch.get_rng_state()
    first, again, other = (wrapper.decode(latents, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("cogvideox", {"max_sequence_length": 30}, "max_sequence_length"),
        ("cogvideox-1.5", {"width": 208}, "width"),
    ],
)
def test_what_cogvideox_has_no_positions_for_is_refused(
    name: str, given: dict[str, Any], field: str, pipelines: Pipelines
) -> None:
    with pytest.raises(InvalidRequest, match="for this model") as error:
        run(pipelines(name), SamplingParams(**{**CALL, **COGVIDEOX, **given}))
    assert error.value.field == field


def apart(one: Output, other: Output) -> int:
    return int(np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max())
