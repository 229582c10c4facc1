"""Controls of Stable Diffusion give what diffusers' pipelines give, alone and in batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from controls import LoadedControls, edges, networks, save_random
from engineless import finish, left, load, run, start
from parity import LATENTS, PIXELS, check_same_picture, pixels_apart, relative
from tiny_checkpoints import stock_pipeline

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a photo of a blue rocket",
    "negative_prompt": "blurry",
    "width": 96,
    "height": 64,
    "num_inference_steps": 4,
    "guidance_scale": 5.0,
}
SIZES = {
    "canny": (64, 96),
    "depth": (70, 45),
    "pooled": (64, 64),
    "union": (50, 80),
    "features": (64, 96),
    "grey": (33, 90),
}
"""Of the pictures of each control."""


MASK = np.tile(np.linspace(-200, 455, 96).clip(0, 255).astype(np.uint8), (64, 1))


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def nets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Networks of diffusers, saved in the folder under `folder`."""
    root = tmp_path_factory.mktemp("controls")
    made = {
        name: save_random(net, root / name, number)
        for number, (name, net) in enumerate(networks(stock_pipeline(folder).unet).items())
    }
    return {**made, "folder": root}


@pytest.fixture(scope="module")
def loaded(pipeline: ComposedPipeline, nets: Mapping[str, Any]) -> LoadedControls:
    return LoadedControls(pipeline, nets["folder"])


def params_of(*controls: str, **change: Any) -> SamplingParams:
    """A request with controls in the words of the command line, as it is sent to an engine."""
    choices = (ControlChoice.of(control.replace(":", "=x:", 1)) for control in controls)
    sent = tuple(replace(choice, image=None) for choice in choices)
    return SamplingParams(**{**CALL, **change}, control=sent)


def pictures_of(params: SamplingParams) -> dict[str, Any]:
    return {
        f"control_{number}": edges(*SIZES[choice.name])
        for number, choice in enumerate(params.control, 1)
    }


def ours(
    pipeline: ComposedPipeline, loaded: LoadedControls, params: SamplingParams, **more: Any
) -> Any:
    pictures = {**more, **pictures_of(params)}
    return run(pipeline, params, pictures, controls=loaded.uses(params.control))


def theirs(
    folder: Path, nets: Mapping[str, Any], params: SamplingParams, task: str = "", **call: Any
) -> Any:
    """What diffusers' pipeline for ControlNets makes of the same request."""
    own = [nets[choice.name] for choice in params.control]
    modes = [each.mode for each in params.control if each.mode is not None]
    kind = "StableDiffusion" + ("XL" if folder.name.startswith("sdxl") else "") + "ControlNet"
    shown = "control_image" if task or modes else "image"
    each: dict[str, Any] = {
        shown: [PIL.Image.fromarray(edges(*SIZES[choice.name])) for choice in params.control],
        "controlnet_conditioning_scale": [float(choice.scale) for choice in params.control],
        "control_guidance_start": [choice.start for choice in params.control],
        "control_guidance_end": [choice.stop for choice in params.control],
    }
    if modes:
        kind += "Union"
        each |= {"control_mode": [["openpose", "depth", "hed", "canny"].index(modes[0])]}
        each |= {name: values[0] for name, values in each.items() if name.startswith("control_g")}
        each["controlnet_conditioning_scale"] = each["controlnet_conditioning_scale"][0]
    elif len(own) == 1:
        each = {name: values[0] for name, values in each.items()}
    made = getattr(diffusers, f"{kind}{task}Pipeline")(
        **stock_pipeline(folder).components, controlnet=own if len(own) > 1 else own[0]
    )
    asked = {name: getattr(params, name) for name in CALL}
    return reference(made, {**asked, **each, **call})


def reference(pipeline: Any, call: Mapping[str, Any]) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    last: dict[str, torch.Tensor] = {}

    def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> Any:
        last.update(tensors)
        return {}

    def keep_latents(step: int, timestep: Any, latents: torch.Tensor) -> None:
        last["latents"] = latents

    adapts = hasattr(pipeline, "adapter")
    observe = {"callback": keep_latents} if adapts else {"callback_on_step_end": keep}
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings(category=FutureWarning, action="ignore"):
        output = pipeline(**call, generator=generator, output_type="np", **observe)
    images = (np.asarray(output.images) * 255).round().astype(np.uint8)
    return SimpleNamespace(latents=last["latents"], images=images)


def check(own: Any, stock: Any) -> None:
    assert relative(own, stock) <= LATENTS
    assert pixels_apart(own, stock) <= PIXELS


@pytest.mark.parametrize(
    "controls",
    [("canny:1",), ("depth:0.7@0.25-0.8",), ("canny:0.6", "depth:0.9@0-0.5"), ("pooled:1",)],
    ids=str,
)
def test_a_controlnet_equals_diffusers(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    controls: tuple[str, ...],
) -> None:
    params = params_of(*controls)
    steered = ours(pipeline, loaded, params)
    check(steered, theirs(folder, nets, params))
    plain = run(pipeline, SamplingParams(**CALL))
    assert not np.allclose(steered.pixels, plain.pixels, atol=8)


@pytest.mark.parametrize("mode", ["depth", "canny"])
def test_a_union_is_told_what_its_picture_shows(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    mode: str,
) -> None:
    if "union" not in nets:
        pytest.skip("diffusers has it for XL only")
    params = params_of(f"union/{mode}:0.8")
    check(ours(pipeline, loaded, params), theirs(folder, nets, params))


@pytest.mark.parametrize("name", ["features", "grey"])
def test_a_t2i_adapter_equals_diffusers(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    name: str,
) -> None:
    if name not in nets:
        pytest.skip("there are no light adapters for XL")
    is_xl = folder.name == "sdxl"
    params = params_of(f"{name}:0.7@0-0.5" if is_xl else f"{name}:0.7")
    kind = "StableDiffusionXLAdapterPipeline" if is_xl else "StableDiffusionAdapterPipeline"
    components = dict(stock_pipeline(folder).components)
    if not is_xl:
        components.pop("image_encoder")
    made = getattr(diffusers, kind)(**components, adapter=nets[name])
    picture = PIL.Image.fromarray(edges(*SIZES[name])).convert("L" if name == "grey" else "RGB")
    call = {**CALL, "image": picture, "adapter_conditioning_scale": 0.7}
    if is_xl:
        call["adapter_conditioning_factor"] = 0.5
    check(ours(pipeline, loaded, params), reference(made, call))


@pytest.mark.parametrize("task", ["Img2Img", "Inpaint"])
def test_pictures_can_be_changed_under_control(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    task: str,
) -> None:
    params = params_of("canny:0.8@0-0.7", strength=0.7, num_inference_steps=6)
    given: dict[str, Any] = {"image": edges(64, 96, seed=5)}
    call: dict[str, Any] = {"image": PIL.Image.fromarray(given["image"]), "strength": 0.7}
    if task == "Inpaint":
        given["mask"] = MASK
        call["mask_image"] = PIL.Image.fromarray(given["mask"])
    check(ours(pipeline, loaded, params, **given), theirs(folder, nets, params, task, **call))


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_a_unet_that_is_shown_the_mask_is_steered(
    model: str, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoints(f"{model}-inpainting")
    net = networks(stock_pipeline(checkpoints(model)).unet)["canny"]
    save_random(net, tmp_path / "canny")
    pipeline = load(folder)
    params = params_of("canny:0.8", strength=0.9, num_inference_steps=5)
    given = {"image": edges(64, 96, seed=5), "mask": MASK}
    own = ours(pipeline, LoadedControls(pipeline, tmp_path), params, **given)
    call = {"image": PIL.Image.fromarray(given["image"]), "mask_image": PIL.Image.fromarray(MASK)}
    check(own, theirs(folder, {"canny": net}, params, "Inpaint", **call, strength=0.9))


def test_rows_of_different_controls_and_of_none_share_a_batch(
    pipeline: ComposedPipeline, nets: Mapping[str, Any], loaded: LoadedControls
) -> None:
    wanted = [
        params_of("canny:1"),
        params_of(seed=1),
        params_of("features:0.9", "depth:0.5@0.3-1", seed=2, num_inference_steps=3),
        params_of("depth:1", seed=3, guidance_scale=1.0, negative_prompt=None),
        params_of("canny:0.4", "pooled:1", seed=4),
        params_of(*(["union/canny:1", "union/depth:0.5"] if "union" in nets else ["grey:1"])),
    ]
    states = [
        start(pipeline, each, pictures_of(each), controls=loaded.uses(each.control))
        for each in wanted
    ]
    assert len({pipeline.batch_key(state, 0) for state in states}) == 1
    while any(left(state) for state in states):
        pipeline.forward(Phase.DENOISE, [state for state in states if left(state)], 1)
    for state, params in zip(states, wanted, strict=True):
        check_same_picture(finish(pipeline, state), ours(pipeline, loaded, params))


def test_a_row_without_control_is_what_it_is_beside_a_row_without_control(
    pipeline: ComposedPipeline, loaded: LoadedControls
) -> None:
    def beside(other: SamplingParams) -> torch.Tensor:
        controls = loaded.uses(other.control)
        states = [
            start(pipeline, params_of()),
            start(pipeline, other, pictures_of(other), controls=controls),
        ]
        pipeline.forward(Phase.DENOISE, states, 2)
        return states[0].running()[1]

    assert torch.equal(beside(params_of("canny:1", seed=7)), beside(params_of(seed=7)))


def test_a_second_pass_is_steered_too(pipeline: ComposedPipeline, loaded: LoadedControls) -> None:
    params = params_of("canny:1", upscale="1.5:0.5")
    steered, plain = ours(pipeline, loaded, params), run(pipeline, params_of(upscale="1.5:0.5"))
    assert steered.pixels.shape == plain.pixels.shape
    assert not np.allclose(steered.pixels, plain.pixels, atol=8)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ("nothing:1", "control='nothing': is not known; available: canny, depth"),
        ("canny/depth:1", "control='canny': mode must be left out for this control"),
    ],
)
def test_a_control_that_does_not_fit_the_request_is_refused(
    pipeline: ComposedPipeline, loaded: LoadedControls, control: str, message: str
) -> None:
    params = params_of(control)
    pictures = {"control_1": edges(64, 96)}
    with pytest.raises(InvalidRequest, match=message):
        start(pipeline, params, pictures, controls=loaded.uses(params.control))
