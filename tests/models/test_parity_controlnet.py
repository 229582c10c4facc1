"""ControlNets of Stable Diffusion give what diffusers' pipelines give, alone and in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from controls import LoadedControls, edges, save_random
from engineless import run
from parity import LATENTS, PIXELS, pixels_apart, relative
from tiny_checkpoints import stock_pipeline

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a photo of a blue rocket",
    "negative_prompt": "blurry",
    "width": 96,
    "height": 64,
    "num_inference_steps": 4,
    "guidance_scale": 5.0,
}
EMBEDDING = (8, 8, 8, 8)
SIZES = {"canny": (64, 96), "depth": (70, 45), "pooled": (64, 64)}
"""Of their pictures."""


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def nets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Networks of diffusers, saved in `.folder`."""
    root = tmp_path_factory.mktemp("controls")
    unet = stock_pipeline(folder).unet
    made = {}
    for number, name in enumerate(SIZES):
        net = diffusers.ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=EMBEDDING, load_weights_from_unet=False
        )
        net.register_to_config(global_pool_conditions=name == "pooled")
        if name == "depth":
            net.register_to_config(controlnet_conditioning_channel_order="bgr")
        made[name] = save_random(net, root / name, number)
    return {**made, "folder": root}


@pytest.fixture(scope="module")
def loaded(pipeline: ComposedPipeline, nets: Mapping[str, Any]) -> LoadedControls:
    return LoadedControls(pipeline, nets["folder"])


def params_of(controls: str | list[str], **change: Any) -> SamplingParams:
    """Controls in the words of the command line, whose pictures are named by the networks."""
    given = [controls] if isinstance(controls, str) else controls
    params = SamplingParams(**{**CALL, **change}, control=tuple(given))
    wire = tuple(diffusers_choice(each) for each in params.control)
    return params.updated(control=wire)


def diffusers_choice(choice: Any) -> Any:
    return type(choice)(choice.name, None, choice.scale, choice.start, choice.stop, choice.mode)


def pictures_of(params: SamplingParams) -> dict[str, Any]:
    return {
        f"control_{number}": edges(*SIZES[choice.name])
        for number, choice in enumerate(params.control, 1)
    }


def stock(folder: Path, nets: Mapping[str, Any], params: SamplingParams, **call: Any) -> Any:
    """The reference of diffusers for the same request."""
    names = [choice.name for choice in params.control]
    pipeline = stock_pipeline(folder)
    kind = "StableDiffusionControlNet" if folder.name == "sd15" else "StableDiffusionXLControlNet"
    task = call.pop("task", "")
    images = [PIL.Image.fromarray(edges(*SIZES[name])) for name in names]
    own = [nets[name] for name in names]
    made = getattr(diffusers, f"{kind}{task}Pipeline")(
        **pipeline.components, controlnet=own if len(own) > 1 else own[0]
    )
    made.set_progress_bar_config(disable=True)
    shown = "control_image" if task else "image"
    each: dict[str, Any] = {
        shown: images,
        "controlnet_conditioning_scale": [float(choice.scale) for choice in params.control],
        "control_guidance_start": [choice.start for choice in params.control],
        "control_guidance_end": [choice.stop for choice in params.control],
    }
    if len(own) == 1:
        each = {name: values[0] for name, values in each.items()}
    return reference_of(made, {**CALL, **each, **call})


def reference_of(pipeline: Any, call: Mapping[str, Any]) -> Any:
    last: dict[str, torch.Tensor] = {}

    def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> Any:
        last.update(tensors)
        return {}

    output = pipeline(
        **call,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        callback_on_step_end=keep,
    )
    images = (np.asarray(output.images) * 255).round().astype(np.uint8)
    return type("Made", (), {"latents": last["latents"], "images": images})


@pytest.mark.parametrize(
    "controls",
    [
        "canny=x",
        "depth=x:0.7@0.25-0.8",
        ["canny=x:0.6", "depth=x:0.9@0-0.5"],
        "pooled=x",
    ],
    ids=str,
)
def test_a_controlnet_equals_diffusers(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    controls: str | list[str],
) -> None:
    params = params_of(controls)
    ours = run(pipeline, params, pictures_of(params), controls=loaded.uses(params.control))
    theirs = stock(folder, nets, params)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    plain = run(pipeline, SamplingParams(**CALL))
    assert not np.allclose(ours.pixels, plain.pixels, atol=8)
