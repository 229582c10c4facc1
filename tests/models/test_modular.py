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
from diffusers.modular_pipelines.minimax_h3.references import MiniMaxH3ImageReference
from engineless import Output, Pictures, finish, left, load, run, start
from parity import LATENTS, PIXELS, pixels_apart, relative
from tiny_checkpoints import reference
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 32,
    "width": 64,
    "num_frames": 124,
    "num_inference_steps": 3,
}
REQUEST = SamplingParams(**CALL, seed=0)
FIRST, LAST = picture(90, 70), picture(40, 60)


@pytest.fixture(scope="module")
def folder(checkpoints: Checkpoints) -> Path:
    return checkpoints("minimax-h3")


@pytest.fixture(scope="module")
def alone(pipeline: ComposedPipeline) -> Output:
    return run(pipeline, REQUEST)


def pixels_of(**pictures: Any) -> Pictures:
    return {name: np.asarray(each.convert("RGB")) for name, each in pictures.items()}


@pytest.mark.parametrize(
    ("change", "stock", "shown"),
    [
        ({"seed": 3, "height": 64, "num_inference_steps": 4}, {}, {}),
        ({}, {"image": FIRST, "last_image": LAST}, {"image": FIRST, "last_image": LAST}),
        ({}, {"references": [FIRST, LAST]}, {"image": FIRST, "image_2": LAST}),
        ({"image_use": "reference"}, {"references": [FIRST]}, {"image": FIRST}),
    ],
    ids=["text", "first and last frame", "two references", "one reference"],
)
def test_minimax_h3_equals_diffusers_with_its_sound(
    pipeline: ComposedPipeline,
    folder: Path,
    change: dict[str, Any],
    stock: dict[str, Any],
    shown: dict[str, Any],
) -> None:
    if "references" in stock:
        stock = {"references": [MiniMaxH3ImageReference(each) for each in stock["references"]]}
    asked = {name: value for name, value in change.items() if name != "image_use"}
    theirs = reference(folder, **{**CALL, **asked, **stock})
    state = start(pipeline, replace(REQUEST, **change), pixels_of(**shown))
    pipeline.forward(Phase.DENOISE, [state], left(state))
    ours = finish(pipeline, state)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    assert theirs.audio is not None
    assert state.audio is not None
    assert state.audio_rate == 160
    assert state.audio.shape == theirs.audio.shape == (2, 207 * 4)
    assert float((state.audio - theirs.audio).abs().max()) <= 1e-4
    assert float(theirs.audio.std()) > 0.1


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
    assert left(state) == 4  # the last level of its schedule is 0
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert left(state) == 3
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


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        ({"num_frames": 125}, "num_frames", "124 more than a multiple of 17; 124 or 141"),
        ({"num_frames": 107}, "num_frames", "124 to 345"),
        ({"width": 48}, "width", "multiple of 32"),
        ({"image_use": "mask"}, "image_use", "must be frame or reference"),
        ({"image_use": "reference"}, "image_path", "required for reference-to-video"),
    ],
    ids=str,
)
def test_what_the_model_does_not_make_is_one_clear_error(
    pipeline: ComposedPipeline, change: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(InvalidRequest, match=allowed) as caught:
        start(pipeline, replace(REQUEST, **change))
    assert caught.value.field == field


def test_more_pictures_than_references_are_refused(pipeline: ComposedPipeline) -> None:
    names = ("image", *(f"image_{number}" for number in range(2, 11)))
    with pytest.raises(InvalidRequest, match="at most 9"):
        start(pipeline, REQUEST, pixels_of(**dict.fromkeys(names, FIRST)))


def test_several_pictures_are_not_one_frame(pipeline: ComposedPipeline) -> None:
    request = replace(REQUEST, image_use="frame")
    with pytest.raises(InvalidRequest, match="one image is the first frame"):
        start(pipeline, request, pixels_of(image=FIRST, image_2=LAST))


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
        ({"vae": ["diffusers", "UNet2DConditionModel", {}]}, "requires AutoencoderKLMiniMaxH3"),
        ({"vae": [None, None, {"subfolder": "../vae"}]}, "subfolder='../vae' must be 'vae'"),
        ({"vae": None}, "needs a vae, each in a folder of its own"),
        ({"canvas_short_edge": 10**9}, "canvas_short_edge=1000000000"),
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
    assert type(load(copy).components["vae"]).__name__ == "AutoencoderKLMiniMaxH3"


def test_a_task_whose_transformer_is_missing_is_left_out(folder: Path, tmp_path: Path) -> None:
    copy = edited(folder, tmp_path / "copy", transformer_ref=None)
    assert load(copy).tasks == ("text-to-video", "image-to-video")


def test_a_block_has_its_components_alone_on_the_device(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[list[str]] = []
    monkeypatch.setattr(pipeline.residency, "hold", lambda names: held.append(sorted(names)))
    state = start(pipeline, REQUEST, pixels_of(image=FIRST, image_2=LAST))
    encoding = [names for names in held if names]
    assert ["processor", "text_encoder", "tokenizer"] in encoding
    assert ["audio_vae", "vae"] in encoding
    assert not any("transformer" in name for names in encoding[:-1] for name in names)
    held.clear()
    pipeline.forward(Phase.DENOISE, [state], left(state))
    assert held == [["audio_scheduler", "scheduler", "transformer_ref"]]
    held.clear()
    finish(pipeline, state)
    assert ["vae"] in held
    assert ["audio_vae"] in held
    needed = type(pipeline).needed_together(["transformer", "transformer_ref", "vae", "audio_vae"])
    assert (Phase.DENOISE, ("transformer",)) in needed
    assert (Phase.DENOISE, ("transformer_ref",)) in needed
    assert (Phase.DECODE, ("audio_vae",)) in needed


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
