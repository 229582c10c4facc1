"""Graphs as ComfyUI's clients send them: what they ask for, and how those are refused that ask for
what can't be."""

from __future__ import annotations

import functools
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from comfyui_client import Graph as Sent
from comfyui_client import default_graph, node
from fastapi import FastAPI
from http_serving import MODEL, app_with, ask
from hypothesis import given, settings
from hypothesis import strategies as st
from told import texts

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.comfyui.errors import InvalidInput, InvalidPrompt
from multimodal_gen.entrypoints.http.comfyui.graph.graph import MAX_NODES, Graph
from multimodal_gen.entrypoints.http.comfyui.graph.graph_translation import (
    GraphTranslator,
    Sampling,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_definitions import definitions_for
from multimodal_gen.entrypoints.http.comfyui.graph.pictures import PictureLoader
from multimodal_gen.entrypoints.http.comfyui.graph.samplers import samplers_of
from multimodal_gen.entrypoints.http.comfyui.graph.values import LoadedImage, LoadedMask
from multimodal_gen.errors import EngineDied, InvalidRequest
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.postprocess.images import encode_image

NOISE = msgspec.structs.replace(
    MODEL,
    family="stable_diffusion",
    tasks=("text-to-image", "image-to-image", "inpainting"),
    size_multiple=8,
    schedulers=("pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "edm_euler", "unipc"),
)
FLUX = msgspec.structs.replace(NOISE, family="flux", parameters=("true_cfg_scale",))
VIDEO = msgspec.structs.replace(
    NOISE,
    family="wan",
    tasks=("text-to-video",),
    defaults=Defaults(width=64, height=64, num_inference_steps=4, num_frames=9, fps=16),
    limits=Limits(max_frames=81),
    parameters=("num_frames", "fps"),
    frame_multiple=4,
)


def graph_of(sent: object, model: ModelInfo = NOISE) -> Graph:
    return Graph.of(sent, definitions_for(model))


def read(
    sent: Sent,
    model: ModelInfo = NOISE,
    loras: tuple[str, ...] = (),
    controls: tuple[str, ...] = (),
) -> Sampling:
    graph = graph_of(sent, model)
    translator = GraphTranslator(graph, model, loras, controls)
    return translator.translate(translator.result_of(graph.outputs[0]).sampled)


@functools.cache
def app_of(family: str) -> FastAPI:
    """An app that no request gets through."""
    (model,) = (each for each in (NOISE, FLUX, VIDEO) if each.family == family)
    return app_with(model=model, ends=EngineDied("lost"))


def refused(sent: object, model: ModelInfo = NOISE, **fields: Any) -> dict[str, Any]:
    """The answer to a prompt that is not taken."""
    body = json.dumps({"prompt": sent, **fields})
    response = ask(app_of(model.family), "POST", "/prompt", content=body)
    assert response.status_code == 400, response.text
    return dict(response.json())


def blamed(sent: Sent, model: ModelInfo = NOISE) -> list[tuple[str, str, str]]:
    """Node, input and kind of each error."""
    return [
        (key, error["extra_info"]["input_name"], error["type"])
        for key, entry in refused(sent, model)["node_errors"].items()
        for error in entry["errors"]
    ]


def test_weights_in_a_prompt_are_comfyuis_where_the_model_reads_them() -> None:
    sent = default_graph(text="a (red:1.2) cat")
    reads = msgspec.structs.replace(NOISE, parameters=("prompt_syntax",))
    assert read(sent, reads).params.prompt_syntax == "comfyui"
    plain = read(sent)
    assert plain.params.prompt_syntax == "plain"
    assert texts(plain.warnings)[0].endswith(
        "has no effect: stable_diffusion reads weights as text"
    )


def changed(key: str, **inputs: Any) -> Sent:
    graph = default_graph()
    graph[key]["inputs"] |= inputs
    return graph


def test_default_workflow_as_parameters() -> None:
    sampling = read(default_graph(steps=20, cfg=8.0, seed=3))
    assert sampling.params == SamplingParams(
        prompt="a red heart",
        negative_prompt="text, watermark",
        width=96,
        height=96,
        num_inference_steps=20,
        guidance_scale=8.0,
        seed=3,
        scheduler="euler",
    )


def test_cfg_is_true_guidance_where_guidance_is_embedded() -> None:
    graph = default_graph(cfg=2.0, positive=["20", 0])
    graph["20"] = node("FluxGuidance", conditioning=["6", 0], guidance=3.5)
    params = read(graph, FLUX).params
    assert (params.true_cfg_scale, params.guidance_scale) == (2.0, 3.5)
    noise = read(graph, NOISE)
    assert noise.params.guidance_scale == 2.0
    assert any("guidance=3.5" in warning for warning in texts(noise.warnings))


GUIDED = msgspec.structs.replace(NOISE, parameters=GUIDANCE_PARAMETERS)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (node("RescaleCFG", model=["4", 0], multiplier=0.6), {"guidance_rescale": 0.6}),
        (
            node("CFGZeroStar", model=["4", 0]),
            {"guidance_method": "cfg_zero", "zero_init_steps": 0},
        ),
        (
            node("APG", model=["4", 0], eta=0.5, norm_threshold=5.0, momentum=-0.5),
            {"guidance_method": "apg", "apg_eta": 0.5, "apg_norm": 5.0, "apg_momentum": -0.5},
        ),
    ],
)
def test_patches_of_guidance_are_parameters_where_the_model_has_them(
    patch: dict[str, Any], expected: dict[str, Any]
) -> None:
    graph = default_graph(model=["20", 0])
    graph["20"] = patch
    params = read(graph, GUIDED).params
    assert {name: getattr(params, name) for name in expected} == expected
    assert any("has no effect" in warning for warning in texts(read(graph, NOISE).warnings))


def test_loras_add_up_in_the_order_of_the_model() -> None:
    strengths = {"strength_model": 0.5, "strength_clip": 0.5}
    graph = default_graph(model=["21", 0])
    graph["20"] = node(
        "LoraLoader", model=["4", 0], clip=["4", 1], lora_name="ink.safetensors", **strengths
    )
    graph["21"] = node("LoraLoader", model=["20", 0], clip=["20", 1], lora_name="oil", **strengths)
    params = read(graph, loras=("ink", "oil")).params
    assert params.lora == (LoraChoice("ink", 0.5), LoraChoice("oil", 0.5))
    assert blamed(graph) == [("21", "lora_name", "custom_validation_failed")]


def test_seeds_beyond_ours_are_folded() -> None:
    assert read(default_graph(seed=2**63 - 100)).params.seed == 2**63 - 100
    folded = read(default_graph(seed=2**64 - 1)).params.seed
    assert folded is not None
    assert 0 <= folded < 2**63


def test_video_is_a_latent_with_a_length() -> None:
    graph = default_graph()
    size = {"width": 64, "height": 64, "batch_size": 1}
    graph["5"] = node("EmptyHunyuanLatentVideo", length=13, **size)
    graph["10"] = node("CreateVideo", images=["8", 0], fps=24)
    graph["9"] = node(
        "SaveVideo", video=["10", 0], filename_prefix="video/x", format="mp4", codec="h264"
    )
    assert read(graph, VIDEO).params.num_frames == 13
    checked = graph_of(graph, VIDEO)
    saved = GraphTranslator(checked, VIDEO).result_of(checked.outputs[0])
    assert saved.video is not None
    assert (saved.video.suffix, saved.video.fps) == (".mp4", 24)
    graph["5"]["inputs"]["length"] = 14
    assert blamed(graph, VIDEO) == [("5", "length", "custom_validation_failed")]


def test_samplers_are_the_models_own_first() -> None:
    names = samplers_of(NOISE.schedulers)
    assert next(iter(names)) == "pndm"
    assert names["euler_ancestral"] == "euler_a"
    assert names["uni_pc"] == "unipc"
    assert set(names.values()) == set(NOISE.schedulers)
    assert samplers_of(("flow_euler", "flow_heun")) == {"euler": "flow_euler", "heun": "flow_heun"}


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        (changed("3", steps="many"), ("3", "steps", "invalid_input_type")),
        (changed("3", steps={}), ("3", "steps", "invalid_input_type")),
        (changed("3", cfg="nan"), ("3", "cfg", "invalid_input_type")),
        (changed("3", cfg=None), ("3", "cfg", "invalid_input_type")),
        (changed("3", steps=0), ("3", "steps", "value_smaller_than_min")),
        (changed("3", steps=10**9), ("3", "steps", "value_bigger_than_max")),
        (changed("3", steps=5000), ("3", "steps", "custom_validation_failed")),
        (changed("3", seed=-1), ("3", "seed", "value_smaller_than_min")),
        (changed("3", seed=2**70), ("3", "seed", "value_bigger_than_max")),
        (changed("3", seed=10**400), ("3", "seed", "value_bigger_than_max")),
        (changed("3", cfg=float("inf")), ("3", "cfg", "value_bigger_than_max")),
        (changed("6", text="\ud800"), ("6", "text", "invalid_input_type")),
        (changed("3", sampler_name="magic"), ("3", "sampler_name", "value_not_in_list")),
        (changed("3", scheduler="magic"), ("3", "scheduler", "value_not_in_list")),
        (changed("3", denoise=0.5), ("3", "denoise", "custom_validation_failed")),
        (changed("3", model=["77", 0]), ("3", "model", "bad_linked_input")),
        (changed("3", model=["4"]), ("3", "model", "bad_linked_input")),
        (changed("3", model=["4", "0"]), ("3", "model", "bad_linked_input")),
        (changed("3", model=["4", -1]), ("3", "model", "bad_linked_input")),
        (changed("3", model=["4", True]), ("3", "model", "bad_linked_input")),
        (changed("3", model="4"), ("3", "model", "bad_linked_input")),
        (changed("3", model=["4", 99]), ("3", "model", "return_type_mismatch")),
        (changed("3", model=["4", 1]), ("3", "model", "return_type_mismatch")),
        (changed("3", latent_image=["3", 0]), ("3", "latent_image", "dependency_cycle")),
        (changed("5", width=100), ("5", "width", "custom_validation_failed")),
        (changed("5", width=8192, height=8192), ("5", "width", "custom_validation_failed")),
        (changed("5", batch_size=1000), ("5", "batch_size", "custom_validation_failed")),
        (changed("6", text=["7", 0]), ("6", "text", "return_type_mismatch")),
        (changed("8", samples=["5", 0]), ("8", "samples", "custom_validation_failed")),
    ],
)
def test_wrong_input_is_named_with_its_node(sent: Sent, where: tuple[str, str, str]) -> None:
    assert blamed(sent) == [where]


def test_missing_inputs_are_all_named() -> None:
    graph = default_graph()
    del graph["3"]["inputs"]["seed"], graph["6"]["inputs"]["text"]
    said = refused(graph)
    assert said["error"]["type"] == "prompt_outputs_failed_validation"
    assert said["node_errors"]["3"]["class_type"] == "KSampler"
    assert said["node_errors"]["3"]["dependent_outputs"] == ["9"]
    missing = "required_input_missing"
    assert sorted(blamed(graph)) == [("3", "seed", missing), ("6", "text", missing)]


def test_unknown_node_is_named() -> None:
    graph = default_graph()
    graph["30"] = node("UltimateSDUpscale", image=["8", 0])
    said = refused(graph)
    assert said["error"]["type"] == "missing_node_type"
    assert "UltimateSDUpscale" in said["error"]["message"]
    assert said["node_errors"]["30"]["class_type"] == "UltimateSDUpscale"


@pytest.mark.parametrize(
    ("sent", "type"),
    [
        (None, "invalid_prompt"),
        ([], "invalid_prompt"),
        ({}, "invalid_prompt"),
        ({"1": None}, "invalid_prompt"),
        ({"1": {"class_type": ["KSampler"]}}, "invalid_prompt"),
        ({"1": {"class_type": "KSampler", "inputs": []}}, "invalid_prompt"),
        ({"1": {"class_type": "__class__"}}, "missing_node_type"),
        ({"1": node("CheckpointLoaderSimple", ckpt_name="x")}, "prompt_no_outputs"),
        ({str(i): node("PreviewImage") for i in range(MAX_NODES + 1)}, "invalid_prompt"),
    ],
)
def test_what_is_no_graph_is_refused(sent: object, type: str) -> None:
    assert refused(sent)["error"]["type"] == type


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"prompt": NaN}', b"\xff"])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    for path in ("/prompt", "/queue", "/history"):
        response = ask(app_of(NOISE.family), "POST", path, content=body)
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_json"


@pytest.mark.parametrize(
    "fields",
    [{"prompt_id": 3}, {"client_id": ["x"]}, {"extra_data": "x"}, {"prompt_id": "x" * 999}],
)
def test_fields_beside_the_graph_are_checked(fields: dict[str, Any]) -> None:
    assert refused(default_graph(), **fields)["error"]["type"].startswith("invalid_")


def test_long_way_around_is_found_to_be_a_cycle() -> None:
    graph = default_graph(model=["100", 0])
    for number in range(100, 250):
        following = 100 if number == 249 else number + 1
        source = [str(following), 0]
        graph[str(number)] = node(
            "LoraLoader",
            model=source,
            clip=["4", 1],
            lora_name="x",
            strength_model=1,
            strength_clip=1,
        )
    assert blamed(graph) == [("249", "model", "dependency_cycle")]


def test_nodes_that_share_sources_are_looked_at_once() -> None:
    graph = default_graph(positive=["150", 0])
    for number in range(101, 151):
        source = ["6", 0] if number == 101 else [str(number - 1), 0]
        graph[str(number)] = node("FluxGuidance", conditioning=source, guidance=1)
    graph["3"]["inputs"]["negative"] = ["150", 0]
    checked = graph_of(graph, FLUX)
    order, problems = checked.order(checked.outputs[0])
    assert len(order) == len(graph) - 1  # all but the text that nothing needs
    assert not problems


def test_output_that_can_be_made_is_made_without_the_other() -> None:
    graph = default_graph()
    graph["10"] = node("PreviewImage", images=["4", 0])
    body = json.dumps({"prompt": graph})
    response = ask(app_of(NOISE.family), "POST", "/prompt", content=body)
    assert response.status_code == 200
    assert list(response.json()["node_errors"]) == ["10"]


def test_picture_that_was_never_sent_is_named() -> None:
    graph = default_graph(denoise=0.5)
    graph["1"] = node("LoadImage", image="never.png")
    graph["5"] = node("VAEEncode", pixels=["1", 0], vae=["4", 2])
    assert blamed(graph) == [("1", "image", "custom_validation_failed")]


def test_mask_grows_and_what_it_covers_is_grey() -> None:
    pixels = np.zeros((20, 34, 3), np.uint8)
    pixels[10, 16] = 255
    file = encode_image(pixels, "png")
    image = LoadedImage("1", "a.png")
    mask = LoadedMask(image, "red", grow=4, erases=True)
    pictures = PictureLoader({"a.png": file}.get, 16, 10**6).load({"image": image}, mask)
    image, mask = pictures["image"], pictures["mask"]
    assert image.shape == (16, 32, 3)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 13, 17)
    assert image[8, 15].tolist() == [128] * 3


def test_origin_of_a_refused_parameter_is_blamed() -> None:
    sampling = read(default_graph())
    error = sampling.blamed(InvalidRequest("height", 3, "must be more"))
    assert (error.node, error.input_name) == ("5", "height")
    error = sampling.blamed(InvalidRequest("deadline_s", 3, "must be more"))
    assert (error.node, error.input_name) == ("3", "model")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(["3", "4", "5", "6", "8", "9"]),
    name=st.sampled_from(
        ["model", "positive", "latent_image", "steps", "text", "samples", "images"]
    ),
    value=_json | st.tuples(st.sampled_from("3456789"), st.integers(-1, 4)).map(list),
)
def test_any_value_of_any_input_is_taken_or_refused(key: str, name: str, value: Any) -> None:
    sent = changed(key, **{name: value})
    try:
        graph = graph_of(sent)
        _, problems = graph.order(graph.outputs[0])
        if not problems:
            translator = GraphTranslator(graph, NOISE)
            translator.translate(translator.result_of(graph.outputs[0]).sampled)
    except (InvalidPrompt, InvalidInput):
        pass


STEERED = msgspec.structs.replace(NOISE, parameters=("control",))


def steered_graph(**apply: Any) -> Sent:
    """The default graph with a union and another control, one after the other."""
    graph = default_graph(positive=["14", 0], negative=["14", 1])
    both = {"positive": ["6", 0], "negative": ["7", 0]}
    whole = {"strength": 0.7, "start_percent": 0.0, "end_percent": 0.8, **apply}
    graph |= {
        "10": node("LoadImage", image="a.png"),
        "11": node("ControlNetLoader", control_net_name="edges.safetensors"),
        "12": node("ControlNetLoader", control_net_name="union.safetensors"),
        "13": node("SetUnionControlNetType", control_net=["12", 0], type="depth"),
        "15": node(
            "ControlNetApplyAdvanced", **both, **whole, control_net=["11", 0], image=["10", 0]
        ),
        "14": node(
            "ControlNetApplyAdvanced",
            positive=["15", 0],
            negative=["15", 1],
            control_net=["13", 0],
            image=["10", 0],
            strength=1.0,
            start_percent=0.2,
            end_percent=1.0,
        ),
    }
    return graph


def test_controls_are_applied_one_after_the_other() -> None:
    sampling = read(steered_graph(), STEERED, controls=("edges", "union"))
    assert sampling.params.control == (
        ControlChoice("edges", None, 0.7, 0.0, 0.8),
        ControlChoice("union", None, 1.0, 0.2, 1.0, "depth"),
    )
    assert [*sampling.pictures] == ["control_1", "control_2"]
    assert sampling.origins["control"] == ("12", "control_net_name")


def test_a_control_without_strength_is_left_out() -> None:
    sampling = read(steered_graph(strength=0.0), STEERED, controls=("edges", "union"))
    assert [choice.name for choice in sampling.params.control] == ["union"]


def test_an_unknown_control_is_refused_where_it_is_loaded() -> None:
    with pytest.raises(InvalidInput) as error:
        read(steered_graph(), STEERED, controls=("edges",))
    assert error.value.node == "12"
    assert "is unknown; available: edges" in str(error.value.problem)


def test_a_warning_about_a_parameter_names_the_input_that_it_comes_from() -> None:
    sampling = read(default_graph())
    warning = sampling.located(RequestWarning.no_effect("guidance_scale", "it is off"))
    assert (warning.code, warning.field) == ("no_effect", "cfg")
    assert str(warning) == "node 3: cfg has no effect: it is off"
    other = RequestWarning("adapter", "flow_shift", "a part")
    assert sampling.located(other) == other
