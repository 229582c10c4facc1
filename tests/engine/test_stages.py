"""The stages: batches, retries, previews and decoding in chunks."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engineless import Output, finish, left, load, run, run_each, run_joined, start

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.request import PREVIEWS_PER_REQUEST
from multimodal_gen.runtime.distributed.mesh import Axis, Mesh
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.executor import SyncExecutor
from multimodal_gen.runtime.residency.residency import Residency
from multimodal_gen.runtime.stages.batch import Batch
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import Rows
from multimodal_gen.runtime.stages.weighted_steps import WeightedSteps

Checkpoints = Callable[..., Path]
Load = Callable[[str], ComposedPipeline]

BASE = SamplingParams(prompt="a red heart", width=48, height=32, num_inference_steps=4)
NEIGHBOURS: dict[str, list[dict[str, Any]]] = {
    "flux-dev": [
        {"guidance_scale": 3.5, "max_sequence_length": 32},
        {"guidance_scale": 1.0, "max_sequence_length": 32, "num_inference_steps": 6, "seed": 1},
        {"max_sequence_length": 32, "true_cfg_scale": 3.0, "negative_prompt": "cat", "seed": 2},
        {"max_sequence_length": 32, "scheduler": "flow_heun", "prompt": "a dog"},
        {"max_sequence_length": 32, "scheduler": "unipc", "prompt": "a cat", "seed": 4},
    ],
    "sd15": [
        {},
        {"scheduler": "euler_a", "guidance_scale": 3.0, "num_inference_steps": 6, "seed": 1},
        {"scheduler": "ddpm", "negative_prompt": "blurry", "seed": 2},
        {"scheduler": "dpmpp_2m_sde", "guidance_scale": 1.0, "seed": 3},
        {"scheduler": "heun", "prompt": "a dog"},
    ],
    "sdxl": [
        {},
        {"scheduler": "ddim", "negative_prompt": "", "seed": 1},
        {"scheduler": "unipc", "negative_prompt": "blurry", "num_inference_steps": 6},
        {"scheduler": "pndm", "guidance_scale": 1.0},
    ],
    "sd35": [
        {"max_sequence_length": 32},
        {"max_sequence_length": 32, "guidance_scale": 1.0, "num_inference_steps": 6, "seed": 1},
        {"max_sequence_length": 32, "negative_prompt": "blurry", "seed": 2, "prompt": "a dog"},
        {"max_sequence_length": 32, "scheduler": "unipc", "prompt": "a cat", "seed": 4},
    ],
    "wan": [
        {"num_frames": 5, "max_sequence_length": 16},
        {"num_frames": 5, "max_sequence_length": 16, "scheduler": "flow_heun", "seed": 1},
        {"num_frames": 5, "max_sequence_length": 16, "guidance_scale": 1.0, "seed": 2},
        {"num_frames": 5, "max_sequence_length": 16, "num_inference_steps": 6, "flow_shift": 5.0},
    ],
}


@pytest.fixture(scope="module")
def pipeline_of(checkpoints: Checkpoints) -> Load:
    loaded: dict[str, ComposedPipeline] = {}

    def get(name: str) -> ComposedPipeline:
        if name not in loaded:
            loaded[name] = load(checkpoints(name))
        return loaded[name]

    return get


@pytest.fixture(scope="module")
def flux(pipeline_of: Load) -> ComposedPipeline:
    return pipeline_of("flux-dev")


def apart(a: Output, b: Output) -> int:
    return int(np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max())


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_same_seed_same_picture_alone_or_joined_to_a_batch(name: str, pipeline_of: Load) -> None:
    pipeline = pipeline_of(name)
    requests = [replace(BASE, **change) for change in NEIGHBOURS[name]]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=range(len(requests)))
    for a, b in zip(alone, joined, strict=True):
        assert apart(a, b) <= 1


def test_prompts_are_cut_even_where_only_the_end_token_fits(flux: ComposedPipeline) -> None:
    guided = replace(BASE, true_cfg_scale=2.0, negative_prompt="", max_sequence_length=1)
    state = start(flux, replace(guided, prompt="a dog and a cat"))
    lengths = [each["encoder_hidden_states"].shape[1] for each in state.conditioning.values()]
    assert lengths == [1, 1]


def test_requests_of_one_evaluation_share_one_call_of_the_denoiser(
    flux: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predict = flux.predict

    def count(rows: Rows) -> torch.Tensor:
        seen.append(len(rows.latents))
        return predict(rows)

    monkeypatch.setattr(flux, "predict", count)
    guided = replace(BASE, true_cfg_scale=2.0, negative_prompt="")
    run_joined(flux, [BASE, guided, BASE], joins=[0, 1, 1])
    assert seen == [1, 4, 4, 4, 3]


def test_an_evaluation_has_rows_for_the_branches_that_each_request_computes(
    flux: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predict = flux.predict
    both, one = ("positive", "negative"), ("positive",)

    def count(rows: Rows) -> torch.Tensor:
        seen.append(len(rows.latents))
        return predict(rows)

    def begin() -> list[RequestState]:
        states = [start(flux, replace(guided, seed=seed)) for seed in (1, 2)]
        states[0].branches = [both, one, one, both]
        states[1].branches = [one, one, both, both]
        return states

    guided = replace(BASE, true_cfg_scale=2.0, negative_prompt="")
    alone = []
    for state in begin():
        flux.forward(Phase.DENOISE, [state], 4)
        alone.append(finish(flux, state))
    monkeypatch.setattr(flux, "predict", count)
    joined = begin()
    assert [joined[0].planned_rows(i) for i in range(4)] == [2, 1, 1, 2]
    flux.forward(Phase.DENOISE, joined, 4)
    assert seen == [3, 2, 3, 4]
    for state, output in zip(joined, alone, strict=True):
        assert apart(finish(flux, state), output) <= 1


def test_an_evaluation_without_rows_does_not_run_the_denoiser(
    flux: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = start(flux, BASE)
    state.branches = [("positive",), (), (), ("positive",)]
    seen: list[int] = []
    predict, guide = flux.predict, flux.guidance.guide

    def count(rows: Rows) -> torch.Tensor:
        seen.append(state.evaluation)
        return predict(rows)

    def guided(prediction: torch.Tensor, own: RequestState) -> torch.Tensor:
        _, latents = own.running()
        return guide(prediction, own) if len(prediction) else latents

    monkeypatch.setattr(flux, "predict", count)
    monkeypatch.setattr(flux.guidance, "guide", guided)
    flux.forward(Phase.DENOISE, [state], 4)
    assert seen == [0, 3]
    assert state.evaluation == 4


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("weighed", [True, False])
def test_an_evaluation_that_failed_is_repeated_with_the_same_outcome(
    flux: ComposedPipeline, monkeypatch: pytest.MonkeyPatch, together: bool, weighed: bool
) -> None:
    if not weighed:
        monkeypatch.setattr(Solver, "weigh", lambda *_: None)
    requests = [replace(BASE, scheduler="unipc"), replace(BASE, scheduler="flow_heun")]
    expected = run_joined(flux, requests, joins=[0, 0])
    states = [start(flux, params) for params in requests]
    flux.forward(Phase.DENOISE, states, 2)
    solver, _ = states[1].running()
    with monkeypatch.context() as broken:
        if weighed:
            broken.setattr(WeightedSteps, "_sum", lambda *_: 1 / 0)
        else:
            broken.setattr(solver, "step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flux.forward(Phase.DENOISE, states, 1)
    assert [state.evaluation for state in states] == [2, 2]
    shared = min(map(left, states)) if together else 0
    flux.forward(Phase.DENOISE, states, shared)
    for state in states:
        flux.forward(Phase.DENOISE, [state], left(state))
    differences = [apart(finish(flux, s), e) for s, e in zip(states, expected, strict=True)]
    assert max(differences) <= (0 if together else 1)  # other rows beside it round otherwise


def test_requests_that_look_alike_but_differ_in_shape_have_unlike_batch_keys(
    flux: ComposedPipeline,
) -> None:
    sizes = [(32, 64), (64, 32), (32, 48)]
    states = [start(flux, replace(BASE, width=w, height=h)) for w, h in sizes]
    states.append(start(flux, replace(BASE, max_sequence_length=16)))
    assert len({flux.batch_key(state, 0) for state in states}) == len(states)


def test_preparing_twice_gives_the_same_noise(flux: ComposedPipeline) -> None:
    state = start(flux, BASE)
    _, first = state.running()
    flux.forward(Phase.ENCODE, [state], 1)
    _, second = state.running()
    assert torch.equal(first, second)


def test_a_dropped_request_leaves_no_conditioning_behind(flux: ComposedPipeline) -> None:
    guided = replace(BASE, true_cfg_scale=2.0, negative_prompt="")
    state = start(flux, guided)
    flux.forward(Phase.DENOISE, [state], 1)
    del state
    gc.collect()
    batch = flux.executor.stages[Phase.DENOISE][0]._batch  # type: ignore[attr-defined]
    assert batch.conditioning == {}


@pytest.mark.parametrize("name", ["flux-dev", "sd15", "sdxl"])
def test_previews_are_small_pictures_at_most_ten_a_request(name: str, pipeline_of: Load) -> None:
    pipeline = pipeline_of(name)
    params = replace(BASE, width=320, height=64, num_inference_steps=25)
    state = start(pipeline, params, previews=True)
    previews = []
    while left(state):
        pipeline.forward(Phase.DENOISE, [state], 1)
        if state.preview is not None:
            previews.append(state.preview)
            state.preview = None
    assert 5 <= len(previews) <= PREVIEWS_PER_REQUEST
    assert all(p.dtype == torch.uint8 and p.shape == (48, 256, 3) for p in previews)


def test_previews_change_nothing_and_come_only_when_asked_for(flux: ComposedPipeline) -> None:
    expected = run(flux, BASE)
    shown, silent = start(flux, BASE, previews=True), start(flux, BASE)
    flux.forward(Phase.DENOISE, [shown, silent], left(shown))
    assert shown.preview is not None
    assert silent.preview is None
    assert apart(finish(flux, shown), expected) <= 1


def test_the_last_preview_of_a_good_model_resembles_the_picture(bundled_model: Path) -> None:
    pipeline = load(bundled_model)
    state = start(pipeline, SamplingParams(prompt="a red heart", seed=7), previews=True)
    pipeline.forward(Phase.DENOISE, [state], left(state))
    assert state.preview is not None
    picture = finish(pipeline, state).pixels[0].astype(float)
    assert np.abs(picture - state.preview.numpy()).mean() < 8


def test_two_videos_take_turns_in_decoding(pipeline_of: Load) -> None:
    wan = pipeline_of("wan")
    requests = [replace(BASE, num_frames=9, seed=seed) for seed in (0, 1)]
    expected = run_each(wan, requests)
    states = [start(wan, params) for params in requests]
    wan.forward(Phase.DENOISE, states, left(states[0]))
    for _ in range(3):
        for state in states:
            wan.forward(Phase.DECODE, [state], 1)
    for state, output in zip(states, expected, strict=True):
        assert [len(chunk) for chunk in state.chunks] == [1, 4, 4]
        assert np.abs(torch.cat(state.chunks).numpy().astype(int) - output.pixels).max() <= 1


def test_chunked_decoding_equals_the_vaes_own(pipeline_of: Load) -> None:
    wan = pipeline_of("wan")
    state = start(wan, replace(BASE, num_frames=13))
    vae = wan.components["vae"]
    _, latents = state.running()
    mean, std = (
        torch.tensor(getattr(vae.config, name)).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    with torch.inference_mode():
        whole = vae.decode(latents * std + mean).sample[0].permute(1, 2, 3, 0)
    expected = ((whole * 0.5 + 0.5) * 255).round().numpy()
    assert np.abs(finish(wan, state).pixels - expected).max() <= 1


def test_prompts_are_encoded_once(flux: ComposedPipeline) -> None:
    first, second = (start(flux, replace(BASE, prompt="once", seed=s)) for s in (1, 2))
    one, two = (s.conditioning["positive"]["encoder_hidden_states"] for s in (first, second))
    assert one.data_ptr() == two.data_ptr()


def test_the_rows_of_a_batch_are_dealt_over_the_ranks_once_each(flux: ComposedPipeline) -> None:
    guided = replace(BASE, true_cfg_scale=2.0, negative_prompt="")
    states = [start(flux, params) for params in (BASE, guided, BASE)]
    shares = [Batch(states, Mesh(cfg=Axis(rank, 6)), flux.join) for rank in range(6)]
    assert [share.owners for share in shares] == [[0], [1], [1], [2], [], []]
    rows = [len(share.conditioning.get("guidance", ())) for share in shares]
    assert rows == [1, 1, 1, 1, 0, 0]
    assert {share.rows for share in shares} == {4}


def test_the_rows_of_an_evaluation_are_dealt_evenly_when_requests_compute_fewer(
    flux: ComposedPipeline,
) -> None:
    guided = replace(BASE, true_cfg_scale=2.0, negative_prompt="")
    states = [start(flux, guided) for _ in range(3)]
    for state in states[:2]:
        state.branches = [("positive",)] * 4
    shares = [Batch(states, Mesh(cfg=Axis(rank, 2)), flux.join) for rank in range(2)]
    assert [share.owners for share in shares] == [[0, 1], [2, 2]]
    assert [share.branches for share in shares] == [["positive"] * 2, ["positive", "negative"]]
    shares = [Batch(states[:1], Mesh(cfg=Axis(rank, 2)), flux.join) for rank in range(2)]
    assert [share.owners for share in shares] == [[0], []]


def test_a_pipeline_is_closed(flux: ComposedPipeline) -> None:
    stages = flux.executor.stages
    used = {name for phase in stages.values() for stage in phase for name in stage.uses}
    assert used == flux.components.keys()
    with pytest.raises(LookupError, match="vae"):
        SyncExecutor(dict.fromkeys(used - {"vae"}, 0), stages, Residency())
