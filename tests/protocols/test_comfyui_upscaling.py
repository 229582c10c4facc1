"""Graphs that enlarge what a sampler made."""

from __future__ import annotations

from typing import Any

import pytest
from comfyui_client import Graph as Sent
from comfyui_client import default_graph, node

from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.configs.solvers import View, noise_schedules_of, solvers_of
from multimodal_gen.entrypoints.http.comfyui.errors import InvalidInput
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Graph
from multimodal_gen.entrypoints.http.comfyui.graph.graph_translation import (
    GraphTranslator,
    Sampling,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_definitions import definitions_for
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo

SOLVERS = solvers_of(View.NOISE)
MODEL = ModelInfo(
    name="served",
    family="stable_diffusion_xl",
    tasks=("text-to-image", "image-to-image"),
    defaults=Defaults(width=512, height=512, num_inference_steps=20),
    limits=Limits(),
    size_multiple=8,
    parameters=("upscale",),
    upscale_ways=("second-pass", "model"),
    schedulers=SOLVERS,
    noise_schedules=noise_schedules_of(SOLVERS, [View.NOISE]),
)
LOADER = {"20": node("UpscaleModelLoader", model_name="4x-tiny.safetensors")}
BY_MODEL = {**LOADER, "21": node("ImageUpscaleWithModel", upscale_model=["20", 0], image=["8", 0])}
HALVED = node("ImageScaleBy", image=["21", 0], upscale_method="area", scale_by=0.5)
LARGER = node("LatentUpscaleBy", samples=["3", 0], upscale_method="bislerp", scale_by=1.5)


def read(changes: Sent) -> Sampling:
    """The last of a default graph's samplings, whose nodes are 3 (sampler), 8 (decoder) and 9."""
    definitions = definitions_for(MODEL, upscalers=["4x-tiny.safetensors"])
    graph = Graph.of({**default_graph(), **changes}, definitions)
    translator = GraphTranslator(graph, MODEL)
    (output,) = graph.outputs
    return translator.translate(translator.result_of(output).sampled)


def again(**changes: Any) -> Sent:
    """A second sampler, its decoder and its output."""
    first = default_graph()["3"]["inputs"]
    inputs = {**first, "latent_image": ["30", 0], "steps": 6, "denoise": 0.5, **changes}
    return {
        "31": node("KSampler", **inputs),
        "32": node("VAEDecode", samples=["31", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["32", 0], filename_prefix="ComfyUI"),
    }


def test_a_model_enlarges_by_the_scale_in_its_name() -> None:
    sent = {**BY_MODEL, "9": node("SaveImage", images=["21", 0], filename_prefix="ComfyUI")}
    assert read(sent).params.upscale == UpscaleChoice(4, model="4x-tiny")


def test_what_a_model_made_is_scaled_back() -> None:
    sent = {**BY_MODEL, "22": HALVED}
    sent["9"] = node("SaveImage", images=["22", 0], filename_prefix="ComfyUI")
    assert read(sent).params.upscale == UpscaleChoice(2, model="4x-tiny")


def test_a_second_sampler_is_a_second_pass_of_as_many_steps() -> None:
    sampling = read({"30": LARGER, **again()})
    assert sampling.params.upscale == UpscaleChoice(1.5, 0.5, 12)
    assert sampling.sampler.id == "31"
    assert sampling.params.num_inference_steps == default_graph()["3"]["inputs"]["steps"]


def test_a_second_sampler_starts_from_what_a_model_made() -> None:
    encoded = node("VAEEncode", pixels=["22", 0], vae=["4", 2])
    sent = {**BY_MODEL, "22": HALVED, "30": encoded, **again()}
    assert read(sent).params.upscale == UpscaleChoice(2, 0.5, 12, "4x-tiny")


def test_a_latent_is_enlarged_to_a_size() -> None:
    size = default_graph()["5"]["inputs"]
    sides = {side: 2 * size[side] for side in ("width", "height")}
    larger = node("LatentUpscale", samples=["3", 0], upscale_method="bislerp", crop="disabled")
    larger["inputs"] |= sides
    assert read({"30": larger, **again()}).params.upscale == UpscaleChoice(2, 0.5, 12)
    larger["inputs"]["height"] = size["height"]
    with pytest.raises(InvalidInput) as error:
        read({"30": larger, **again()})
    assert "must keep the shape" in str(error.value.problem)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"30": LARGER, **again(positive=["7", 0])}, "must be the first sampler's positive"),
        (
            {
                **LOADER,
                "21": node("ImageUpscaleWithModel", upscale_model=["20", 0], image=["8", 0]),
                "22": node("ImageUpscaleWithModel", upscale_model=["20", 0], image=["21", 0]),
                "9": node("SaveImage", images=["22", 0], filename_prefix="ComfyUI"),
            },
            "must not be enlarged already",
        ),
        (
            {
                "22": node("ImageScaleBy", image=["8", 0], upscale_method="area", scale_by=2),
                "9": node("SaveImage", images=["22", 0], filename_prefix="ComfyUI"),
            },
            "must be a loaded image, or what an upscale model made",
        ),
    ],
)
def test_what_can_not_be_done_is_refused(sent: Sent, said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        read(sent)
    assert said in str(error.value.problem)
