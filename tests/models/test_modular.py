"""Modular pipelines of diffusers run with the library's blocks, step by step."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engineless import Output, Pictures, finish, left, load, run, start
from parity import LATENTS, PIXELS, pixels_apart, relative
from tiny_checkpoints import reference
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.modular.block_call import made_by

Checkpoints = Callable[..., Path]

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 64,
    "width": 96,
    "num_inference_steps": 3,
}
REQUEST = SamplingParams(**CALL, seed=0)
FIRST, LAST = picture(90, 70), picture(40, 60)


@pytest.fixture(scope="module")
def folder(checkpoints: Checkpoints) -> Path:
    return checkpoints("modular-flux2-klein")


@pytest.fixture(scope="module")
def alone(pipeline: ComposedPipeline) -> Output:
    return run(pipeline, REQUEST)


def pixels_of(**pictures: Any) -> Pictures:
    return {name: np.asarray(each.convert("RGB")) for name, each in pictures.items()}


def test_requests_that_alternate_make_what_they_make_alone(
    pipeline: ComposedPipeline, alone: Output
) -> None:
    other = replace(REQUEST, seed=5, num_inference_steps=4)
    expected = run(pipeline, other)
    states = [start(pipeline, REQUEST), start(pipeline, other, name="other")]
    assert pipeline.batch_key(states[0], 0) != pipeline.batch_key(states[1], 0)
    while any(map(left, states)):
        for state in filter(left, states):
            pipeline.forward(Phase.DENOISE, [state], 1)
    for state, own in zip(states, (alone, expected), strict=True):
        assert np.array_equal(finish(pipeline, state).pixels, own.pixels)


def test_each_step_is_an_evaluation(pipeline: ComposedPipeline) -> None:
    state = start(pipeline, replace(REQUEST, num_inference_steps=5))
    assert left(state) == 5
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert left(state) == 4
    before = state.latents
    assert before is not None
    kept = before.clone()
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert state.latents is not None
    assert not torch.equal(state.latents, kept)


def test_a_cancelled_request_leaves_nothing_behind(pipeline: ComposedPipeline) -> None:
    gc.collect()
    threads = threading.active_count()
    state = start(pipeline, REQUEST)
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert threading.active_count() == threads + 1
    latents = weakref.ref(state.latents)
    del state
    gc.collect()
    assert threading.active_count() == threads
    assert latents() is None


def test_sound_that_blocks_leave_is_kept_with_its_rate() -> None:
    video, sound = np.zeros((1, 2, 4, 4, 3), dtype=np.float32), torch.rand(1, 2, 7)
    made = made_by({"videos": video, "audio": sound, "sampling_rate": 160})
    assert made.sound is not None
    assert torch.equal(made.sound, sound[0])
    assert made.rate == 160


def test_more_pictures_than_the_blocks_take_are_refused(pipeline: ComposedPipeline) -> None:
    names = ("image", *(f"image_{number}" for number in range(2, 6)))
    with pytest.raises(InvalidRequest, match="at most 4"):
        start(pipeline, REQUEST, pixels_of(**dict.fromkeys(names, FIRST)))


def edited(folder: Path, to: Path, **entries: Any) -> Path:
    """A copy with these entries of its index changed; None takes one out, with its folder."""
    shutil.copytree(folder, to)
    path = to / "modular_model_index.json"
    index = json.loads(path.read_text())
    for name, value in entries.items():
        if value is None:
            del index[name]
            shutil.rmtree(to / name)
        else:
            index[name] = value
    path.write_text(json.dumps(index))
    return to


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"vae": ["os", "system", {}]}, "os.system is not an allowed class"),
        ({"vae": ["diffusers", "UNet2DConditionModel", {}]}, "requires AutoencoderKLFlux2"),
        ({"vae": [None, None, {"subfolder": "../vae"}]}, "subfolder='../vae' must be 'vae'"),
        ({"vae": None}, "needs a vae, each in a folder of its own"),
        ({"is_distilled": 10**9}, "is_distilled=1000000000"),
        ({"_class_name": "MiniMaxMusic3ModularPipeline"}, "sound without a picture"),
        ({"_class_name": "SomeModularPipeline"}, "'SomeModularPipeline' is not known"),
    ],
    ids=str,
)
def test_an_index_that_names_something_else_is_refused(
    folder: Path, tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        load(edited(folder, tmp_path / "copy", **entries))
    assert "modular_model_index.json" in str(caught.value)


def test_components_come_from_the_checkpoint_wherever_the_index_says_they_are(
    folder: Path, tmp_path: Path
) -> None:
    index = json.loads((folder / "modular_model_index.json").read_text())
    source = index["vae"][2]
    assert source["pretrained_model_name_or_path"] == "owner/name"
    hint = {**source, "pretrained_model_name_or_path": "/etc", "revision": "main"}
    copy = edited(folder, tmp_path / "copy", vae=[None, None, hint])
    assert type(load(copy).components["vae"]).__name__ == "AutoencoderKLFlux2"


def test_a_block_has_its_components_alone_on_the_device(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[list[str]] = []
    monkeypatch.setattr(type(pipeline.residency), "moves", True)
    monkeypatch.setattr(pipeline.residency, "hold", lambda names: held.append(sorted(names)))
    state = start(pipeline, REQUEST, pixels_of(image=FIRST))
    encoding = [names for names in held if names]
    assert ["text_encoder", "tokenizer"] in encoding
    assert ["vae"] in encoding
    assert not any("transformer" in names and "vae" in names for names in encoding)
    held.clear()
    pipeline.forward(Phase.DENOISE, [state], left(state))
    assert held == [["scheduler", "transformer"]]
    held.clear()
    finish(pipeline, state)
    assert ["vae"] in held
    needed = type(pipeline).needed_together(["transformer", "vae"])
    assert (Phase.DENOISE, ("transformer",)) in needed
    assert (Phase.DECODE, ("vae",)) in needed


def check(folder: Path, call: dict[str, Any], stock: dict[str, Any], shown: Pictures) -> None:
    pipeline = load(folder)
    theirs = reference(folder, **call, **stock)
    ours = run(pipeline, SamplingParams(**call, seed=0), shown)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    assert ours.pixels.std() > 10


@pytest.mark.parametrize("pictures", [[], [FIRST], [FIRST, LAST]], ids=["text", "one", "two"])
def test_flux_3_equals_diffusers_with_the_prompt_as_it_is(
    checkpoints: Checkpoints, pictures: list[Any]
) -> None:
    call = {"prompt": "a red heart", "height": 64, "width": 96, "num_inference_steps": 3}
    stock = {"image": pictures if len(pictures) > 1 else pictures[0]} if pictures else {}
    names = ("image", "image_2")
    shown = pixels_of(**dict(zip(names, pictures, strict=False)))
    check(checkpoints("flux3"), {**call, "guidance_scale": 2.0}, stock, shown)


def test_guidance_within_an_interval_is_that_of_the_librarys_guider(
    checkpoints: Checkpoints,
) -> None:
    flux3 = load(checkpoints("flux3"))
    call = {"prompt": "a red heart", "height": 64, "width": 96, "num_inference_steps": 4}
    params = SamplingParams(**call, seed=0, guidance_scale=2.0)
    plain, unguided = run(flux3, params), run(flux3, replace(params, guidance_scale=1.0))
    never = run(flux3, replace(params, guidance_start=0.9, guidance_stop=0.95))
    assert np.array_equal(never.pixels, unguided.pixels)
    changes: list[dict[str, Any]] = [
        {"guidance_stop": 0.5},
        {"guidance_method": "apg"},
        {"guidance_rescale": 0.5},
    ]
    for change in changes:
        assert not np.array_equal(run(flux3, replace(params, **change)).pixels, plain.pixels)


@pytest.mark.slow  # it compiles its attention
@pytest.mark.filterwarnings("ignore")
def test_wan_animate_2_equals_diffusers(checkpoints: Checkpoints) -> None:
    """It goes through parts of the video, each with a loop of its own."""
    call = {"prompt": "a red heart", "height": 32, "width": 64, "num_inference_steps": 2}
    frames = [picture(64, 32 + index) for index in range(81)]
    moves = [frame.resize((64, 32)) for frame in frames]
    shown = pixels_of(image=FIRST)
    shown["video"] = np.stack([np.asarray(frame.convert("RGB")) for frame in moves])
    stock = {"image": FIRST, "driving_video": moves}
    check(checkpoints("wan-animate-2"), call, stock, shown)
    with pytest.raises(InvalidRequest, match="required for reference-to-video") as caught:
        start(load(checkpoints("wan-animate-2")), SamplingParams(**call), pixels_of(image=FIRST))
    assert caught.value.field == "video_path"


@pytest.mark.filterwarnings("ignore")  # attention that is not compiled warns
def test_ltx_25_and_its_sound_equal_diffusers(checkpoints: Checkpoints) -> None:
    call = {"prompt": "a red heart", "height": 32, "width": 32, "num_inference_steps": 2}
    folder = checkpoints("ltx2.5")
    theirs = reference(folder, **call, num_frames=9)
    ours = run(load(folder), SamplingParams(**call, num_frames=9, seed=0))
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    assert ours.sound is not None
    assert np.abs(np.asarray(ours.sound) - theirs.audio.numpy()).max() <= 1e-4
    assert theirs.audio.std() > 0.1


OTHERS = ("flux", "ltx", "qwenimage", "sd3", "sdxl", "wan22")


@pytest.mark.parametrize("name", OTHERS)
def test_other_modular_pipelines_run_without_code_of_their_own(
    checkpoints: Checkpoints, name: str
) -> None:
    call: dict[str, Any] = {
        "prompt": "a red heart",
        "height": 64,
        "width": 96,
        "num_inference_steps": 2,
    }
    if name in ("ltx", "wan22"):
        call["num_frames"] = 9
    check(checkpoints(f"modular-{name}"), call, {}, {})
