"""Graphs as ComfyUI's templates build them, for each family: what they ask for, and what they are
told has no effect."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from comfyui_client import Graph as Sent
from comfyui_client import default_graph, node
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from told import texts

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.solvers import SCHEDULE_PARAMETERS, View, noise_schedules_of, solvers_of
from multimodal_gen.entrypoints.http.bodies.room import Hold, Room
from multimodal_gen.entrypoints.http.comfyui.errors import InvalidInput, InvalidPrompt
from multimodal_gen.entrypoints.http.comfyui.graph.arithmetic import evaluate
from multimodal_gen.entrypoints.http.comfyui.graph.definition import Input
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Graph
from multimodal_gen.entrypoints.http.comfyui.graph.graph_translation import (
    GraphTranslator,
    Sampling,
)
from multimodal_gen.entrypoints.http.comfyui.graph.image_steps import CropStep, PadStep, ScaleStep
from multimodal_gen.entrypoints.http.comfyui.graph.node_definitions import definitions_for
from multimodal_gen.entrypoints.http.comfyui.graph.pictures import PictureLoader, _grown
from multimodal_gen.entrypoints.http.comfyui.graph.samplers import menu_of, nearest
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    LoadedImage,
    LoadedMask,
    SavedResult,
)
from multimodal_gen.entrypoints.python.decoding import picture_memory
from multimodal_gen.errors import QueueFull
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo
from multimodal_gen.postprocess.images import encode_image

SIZE = {"width": 512, "height": 256, "batch_size": 1}


def model_of(family: str, view: View = View.FLOW, **defaults: Any) -> ModelInfo:
    (config,) = (each for each in FAMILIES if each.name == family)
    video = any("video" in task for task in config.tasks)
    usual: dict[str, Any] = {"width": 512, "height": 512, "num_inference_steps": 20}
    if video:
        usual |= {"num_frames": 81, "fps": 16}
    return ModelInfo(
        name="served",
        family=family,
        tasks=config.tasks,
        defaults=Defaults(**usual | defaults),
        limits=Limits(max_frames=121, max_images=config.limits.max_images),
        size_multiple=16,
        frame_multiple=4 if video else 1,
        parameters=(*config.parameters, *SCHEDULE_PARAMETERS[view], "lora"),
        schedulers=solvers_of(view),
        noise_schedules=noise_schedules_of(solvers_of(view), [view]),
    )


FLUX = model_of("flux")
SDXL = model_of("stable_diffusion_xl", View.NOISE)
WAN = model_of("wan", flow_shift=5.0)
EXPERTS = msgspec.structs.replace(
    WAN,
    parameters=(*WAN.parameters, "guidance_scale_2"),
    lora_targets=("transformer", "transformer_2", "text_encoder"),
)


def read(sent: Sent, model: ModelInfo, loras: tuple[str, ...] = ()) -> Sampling:
    _, sampling = both(sent, model, loras)
    return sampling


def both(sent: Sent, model: ModelInfo, loras: tuple[str, ...] = ()) -> tuple[SavedResult, Sampling]:
    graph = Graph.of(sent, definitions_for(model, loras=loras))
    (output,) = graph.outputs
    assert graph.order(output)[1] == []
    translator = GraphTranslator(graph, model, loras)
    saved = translator.result_of(output)
    sampling = translator.translate(saved.sampled)
    sampling.warnings += translator.idle(output)
    return saved, sampling


def asked(sampling: Sampling, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(sampling.params, name) for name in names)


def separate_files(kind: str = "flux", **nodes: Any) -> Sent:
    """Loaders of a model in separate files, two prompts, and a decoded result of node 13."""
    return {
        "1": node("UNETLoader", unet_name="served", weight_dtype="default"),
        "2": node("CLIPLoader", clip_name="served", type=kind, device="default"),
        "3": node("VAELoader", vae_name="served"),
        "5": node("CLIPTextEncode", clip=["2", 0], text="a red heart"),
        "6": node("CLIPTextEncode", clip=["2", 0], text="blurry"),
        "7": node("EmptySD3LatentImage", **SIZE),
        "8": node("VAEDecode", samples=["13", 0], vae=["3", 0]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="x"),
        **nodes,
    }


def sampled(**changes: Any) -> dict[str, Any]:
    inputs = {
        "model": ["1", 0],
        "positive": ["5", 0],
        "negative": ["6", 0],
        "latent_image": ["7", 0],
        "seed": 3,
        "steps": 8,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    return node("KSampler", **inputs | changes)


def advanced_flux() -> Sent:
    return separate_files(
        **{
            "2": node(
                "DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="clip_l", type="flux"
            ),
            "4": node("FluxGuidance", conditioning=["5", 0], guidance=3.5),
            "10": node("BasicGuider", model=["1", 0], conditioning=["4", 0]),
            "11": node("BasicScheduler", model=["1", 0], scheduler="simple", steps=20, denoise=1.0),
            "12": node("KSamplerSelect", sampler_name="euler"),
            "13": node(
                "SamplerCustomAdvanced",
                noise=["14", 0],
                guider=["10", 0],
                sampler=["12", 0],
                sigmas=["11", 0],
                latent_image=["7", 0],
            ),
            "14": node("RandomNoise", noise_seed=42),
        }
    )


def test_flux_with_a_custom_sampler() -> None:
    sampling = read(advanced_flux(), FLUX)
    names = ("prompt", "width", "height", "seed", "num_inference_steps", "guidance_scale")
    assert asked(sampling, *names) == ("a red heart", 512, 256, 42, 20, 3.5)
    # The guider has no guidance, whatever the model's default is.
    assert asked(sampling, "scheduler", "true_cfg_scale", "negative_prompt") == (
        "flow_euler",
        1.0,
        None,
    )
    (warning,) = texts(sampling.warnings)
    assert warning.startswith("DualCLIPLoader 2: clip_name1=t5.safetensors, clip_name2=clip_l")


def test_loader_names_of_the_served_model_give_no_warning() -> None:
    graph = separate_files(**{"13": sampled()})
    del graph["2"]["inputs"]["device"]
    graph["2"]["inputs"]["type"] = "stable_diffusion"
    assert texts(read(graph, FLUX).warnings) == []
    graph["1"]["inputs"] = {"unet_name": "flux1-dev.safetensors", "weight_dtype": "fp8_e4m3fn"}
    (warning,) = texts(read(graph, FLUX).warnings)
    assert "unet_name=flux1-dev.safetensors, weight_dtype=fp8_e4m3fn has no effect" in warning
    assert "the served model is always used" in warning


def test_cfg_guider_and_denoised_output() -> None:
    graph = advanced_flux()
    graph["10"] = node("CFGGuider", model=["1", 0], positive=["4", 0], negative=["6", 0], cfg=2.0)
    graph["8"]["inputs"]["samples"] = ["13", 1]
    sampling = read(graph, FLUX)
    assert asked(sampling, "true_cfg_scale", "negative_prompt") == (2.0, "blurry")


def test_basic_guider_is_no_guidance_where_none_is_embedded() -> None:
    graph = advanced_flux()
    graph["10"]["inputs"]["conditioning"] = ["5", 0]
    assert asked(read(graph, SDXL), "guidance_scale", "negative_prompt") == (1.0, None)


def test_qwen_image_with_its_shift_and_cfg() -> None:
    graph = separate_files(
        "qwen_image",
        **{
            "4": node("ModelSamplingAuraFlow", model=["1", 0], shift=3.1),
            "13": sampled(model=["4", 0]),
        },
    )
    model = model_of("qwen_image")
    sampling = read(graph, model)
    assert asked(sampling, "true_cfg_scale", "negative_prompt") == (4.0, "blurry")
    assert sampling.params.flow_shift == 3.1


def test_shift_that_the_model_can_not_change_is_named() -> None:
    graph = separate_files(
        **{
            "4": node("ModelSamplingSD3", model=["1", 0], shift=3.0),
            "13": sampled(model=["4", 0]),
        },
    )
    warnings = texts(read(graph, SDXL).warnings)
    assert any("ModelSamplingSD3 4: shift=3.0 has no effect" in warning for warning in warnings)


def test_stable_diffusion_3_with_zeros_for_a_part_of_the_time() -> None:
    zeroed = {"conditioning": ["20", 0], "start": 0.1, "end": 1.0}
    graph = separate_files(
        **{
            "2": node("TripleCLIPLoader", **{f"clip_name{n}": "served" for n in (1, 2, 3)}),
            "20": node("ConditioningZeroOut", conditioning=["6", 0]),
            "21": node("ConditioningSetTimestepRange", **zeroed),
            "22": node("ConditioningSetTimestepRange", conditioning=["6", 0], start=0.0, end=0.1),
            "23": node("ConditioningCombine", conditioning_1=["21", 0], conditioning_2=["22", 0]),
            "13": sampled(negative=["23", 0]),
        }
    )
    sampling = read(graph, model_of("stable_diffusion_3"))
    assert asked(sampling, "negative_prompt", "guidance_scale") == ("blurry", 4.0)
    assert [w.partition(":")[0] for w in texts(sampling.warnings)] == [
        "ConditioningSetTimestepRange 21",
        "ConditioningSetTimestepRange 22",
    ]


def test_zeros_as_negative_prompt_are_none() -> None:
    zeros = node("ConditioningZeroOut", conditioning=["5", 0])
    graph = separate_files(**{"6": zeros, "13": sampled(cfg=1.0)})
    assert read(graph, FLUX).params.negative_prompt is None
    wordy = model_of("wan", negative_prompt="ugly")
    assert read(graph, wordy).params.negative_prompt == ""


def test_sdxl_text_node_with_two_texts() -> None:
    size = dict.fromkeys(("width", "height", "target_width", "target_height"), 1024)
    given = {"text_g": "a red heart", "text_l": "heart, red", "crop_w": 0, "crop_h": 0, **size}
    graph = separate_files(
        **{"5": node("CLIPTextEncodeSDXL", clip=["2", 0], **given), "13": sampled()}
    )
    sampling = read(graph, SDXL)
    assert sampling.params.prompt == "a red heart"
    assert any("text_l=heart, red has no effect" in warning for warning in texts(sampling.warnings))
    graph["5"]["inputs"]["text_l"] = "a red heart"
    assert not any("CLIPTextEncodeSDXL" in warning for warning in texts(read(graph, SDXL).warnings))


def test_flux_text_node_with_guidance() -> None:
    given = {"clip_l": "", "t5xxl": "a red heart", "guidance": 2.5}
    graph = separate_files(
        **{"5": node("CLIPTextEncodeFlux", clip=["2", 0], **given), "13": sampled(cfg=1.0)}
    )
    assert asked(read(graph, FLUX), "prompt", "guidance_scale") == ("a red heart", 2.5)


def test_null_text_is_empty_with_a_warning() -> None:
    graph = default_graph()
    graph["7"]["inputs"]["text"] = None
    sampling = read(graph, SDXL)
    assert sampling.params.negative_prompt == ""
    assert "CLIPTextEncode 7: text is null, and read as an empty text" in texts(sampling.warnings)


@pytest.mark.parametrize(
    ("patch", "family", "warned"),
    [
        (node("CFGNorm", model=["1", 0], strength=1.0), "qwen_image", False),
        (node("CFGNorm", model=["1", 0], strength=1.0), "flux", True),
        (node("DifferentialDiffusion", model=["1", 0]), "flux", True),
        (node("TorchCompileModel", model=["1", 0], backend="inductor"), "flux", False),
    ],
)
def test_patches_without_an_effect_are_named(patch: Sent, family: str, warned: bool) -> None:
    graph = separate_files(**{"20": patch, "13": sampled(model=["20", 0])})
    warnings = texts(read(graph, model_of(family)).warnings)
    assert any(f"{patch['class_type']} 20 has no effect" in each for each in warnings) is warned


def test_steps_of_images_without_an_effect_are_named() -> None:
    graph = separate_files(
        **{
            "20": node("LoadImage", image="a.png"),
            "21": node("LTXVPreprocess", image=["20", 0], img_compression=35),
            "22": node("GrowMask", mask=["20", 1], expand=4, tapered_corners=True),
            "23": node("VAEEncode", pixels=["21", 0], vae=["3", 0]),
            "7": node("SetLatentNoiseMask", samples=["23", 0], mask=["22", 0]),
            "13": sampled(),
        }
    )
    said = " ".join(texts(read(graph, SDXL).warnings))
    assert "LTXVPreprocess 21: img_compression=35 has no effect" in said
    assert "GrowMask 22: tapered_corners=True has no effect" in said


def test_unknown_inputs_are_named() -> None:
    graph = default_graph()
    graph["3"]["inputs"]["eta"] = 0.5
    assert "KSampler 3: unknown inputs: eta" in texts(read(graph, SDXL).warnings)


def test_loras_of_both_nodes_add_up() -> None:
    graph = separate_files(
        **{
            "10": node(
                "LoraLoader",
                model=["1", 0],
                clip=["2", 0],
                lora_name="ink.safetensors",
                strength_model=0.5,
                strength_clip=1.0,
            ),
            "11": node(
                "LoraLoaderModelOnly", model=["10", 0], lora_name="oil", strength_model=-0.25
            ),
            "12": node(
                "LoraLoaderModelOnly", model=["11", 0], lora_name="ink", strength_model=0.25
            ),
            "13": sampled(model=["12", 0]),
        }
    )
    sampling = read(graph, FLUX, ("ink", "oil"))
    assert sampling.params.lora == (LoraChoice("ink", 0.75), LoraChoice("oil", -0.25))
    assert any(
        "LoraLoader 10: strength_clip=1.0" in warning for warning in texts(sampling.warnings)
    )


def wan_graph(**nodes: Any) -> Sent:
    video = {"width": 832, "height": 480, "length": 33, "batch_size": 1}
    webp = {"fps": 16, "lossless": False, "quality": 90, "method": "default"}
    return separate_files(
        "wan",
        **{
            "4": node("ModelSamplingSD3", model=["1", 0], shift=8.0),
            "7": node("EmptyHunyuanLatentVideo", **video),
            "9": node("SaveAnimatedWEBP", images=["8", 0], filename_prefix="x", **webp),
            "13": sampled(model=["4", 0], sampler_name="uni_pc"),
            **nodes,
        },
    )


def test_wan_saved_as_webp() -> None:
    saved, sampling = both(wan_graph(), WAN)
    names = ("width", "height", "num_frames", "flow_shift", "guidance_scale", "scheduler")
    assert asked(sampling, *names) == (832, 480, 33, 8.0, 4.0, "unipc")
    assert saved.video is not None
    assert (saved.video.suffix, saved.video.fps, saved.video.lossless) == (".webp", 16, False)


def test_video_combine_is_a_video_among_gifs() -> None:
    combined = {"frame_rate": 24, "loop_count": 0, "filename_prefix": "x", "pingpong": False}
    graph = wan_graph(
        **{
            "9": node(
                "VHS_VideoCombine",
                images=["8", 0],
                format="video/h265-mp4",
                save_output=True,
                **combined,
            )
        }
    )
    saved, sampling = both(graph, WAN)
    assert saved.video is not None
    assert (saved.key, saved.video.suffix, saved.video.fps) == ("gifs", ".mp4", 24)
    assert any(
        "format=video/h265-mp4 has no effect" in warning for warning in texts(sampling.warnings)
    )


def experts(start: int = 4) -> Sent:
    """Wan 2.2: the high-noise expert, then the low-noise one."""
    common = {
        "steps": 8,
        "sampler_name": "euler",
        "scheduler": "simple",
        "noise_seed": 5,
        "positive": ["5", 0],
        "negative": ["6", 0],
    }
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 4, "cfg": 3.5}
    second = {"add_noise": "disable", "start_at_step": start, "end_at_step": 10_000, "cfg": 3.0}
    lora = {"lora_name": "fast_high", "strength_model": 1.0}
    return wan_graph(
        **{
            "10": node("UNETLoader", unet_name="wan2.2_low", weight_dtype="default"),
            "11": node("LoraLoaderModelOnly", model=["4", 0], **lora),
            "12": node(
                "KSamplerAdvanced",
                model=["11", 0],
                latent_image=["7", 0],
                return_with_leftover_noise="enable",
                **common,
                **first,
            ),
            "13": node(
                "KSamplerAdvanced",
                model=["10", 0],
                latent_image=["12", 0],
                return_with_leftover_noise="disable",
                **common,
                **second,
            ),
        }
    )


def test_two_samplers_are_the_two_experts_of_a_model() -> None:
    sampling = read(experts(), EXPERTS, ("fast_high",))
    names = ("guidance_scale", "guidance_scale_2", "num_inference_steps", "seed")
    assert asked(sampling, *names) == (3.5, 3.0, 8, 5)
    assert sampling.params.lora == (LoraChoice("fast_high", target="transformer"),)
    assert any("end_at_step=4 has no effect" in warning for warning in texts(sampling.warnings))


def test_a_lora_before_each_sampler_goes_to_its_expert() -> None:
    graph = experts()
    graph["14"] = node(
        "LoraLoaderModelOnly", model=["10", 0], lora_name="fast_high", strength_model=0.25
    )
    graph["13"]["inputs"]["model"] = ["14", 0]
    targets = ("transformer", "transformer_2", "text_encoder")
    model = msgspec.structs.replace(EXPERTS, lora_targets=targets)
    assert read(graph, model, ("fast_high",)).params.lora == (
        LoraChoice("fast_high", 1.0, "transformer"),
        LoraChoice("fast_high", 0.25, "transformer_2"),
    )


def test_lora_of_the_second_expert_is_the_second_experts() -> None:
    graph = experts()
    lora = {"lora_name": "fast_high", "strength_model": 0.5}
    graph["14"] = node("LoraLoaderModelOnly", model=["10", 0], **lora)
    graph["13"]["inputs"]["model"] = ["14", 0]
    assert read(graph, EXPERTS, ("fast_high",)).params.lora == (
        LoraChoice("fast_high", 1.0, "transformer"),
        LoraChoice("fast_high", 0.5, "transformer_2"),
    )


@pytest.mark.parametrize(("model", "start"), [(WAN, 4), (EXPERTS, 5)])
def test_other_pairs_of_samplers_are_refused(model: ModelInfo, start: int) -> None:
    graph = experts(start)
    with pytest.raises(InvalidInput):
        read(graph, model, ("fast_high",))


def test_whole_schedule_of_the_advanced_sampler() -> None:
    graph = experts()
    graph["13"]["inputs"] |= {"latent_image": ["7", 0], "add_noise": "enable", "start_at_step": 0}
    assert asked(read(graph, WAN), "guidance_scale", "seed") == (3.0, 5)
    graph["13"]["inputs"]["start_at_step"] = 2
    with pytest.raises(InvalidInput) as error:
        read(graph, WAN)
    assert error.value.input_name == "start_at_step"


def test_denoise_keeps_the_number_of_steps() -> None:
    """ComfyUI does `steps` steps, at the end of a longer schedule."""
    image = node("LoadImage", image="a.png")
    encoded = node("VAEEncode", pixels=["4", 0], vae=["3", 0])
    graph = separate_files(**{"4": image, "7": encoded, "13": sampled(steps=20, denoise=0.6)})
    sampling = read(graph, SDXL)
    steps, strength = asked(sampling, "num_inference_steps", "strength")
    assert (steps, int(steps * strength)) == (33, 20)
    assert sampling.pictures["image"] == LoadedImage("4", "a.png")
    assert sampling.sized_by == "image"


@given(steps=st.integers(1, 500), denoise=st.floats(0.05, 0.99))
def test_any_denoise_keeps_the_number_of_steps(steps: int, denoise: float) -> None:
    image = node("LoadImage", image="a.png")
    encoded = node("VAEEncode", pixels=["4", 0], vae=["3", 0])
    graph = separate_files(**{"4": image, "7": encoded, "13": sampled(steps=steps)})
    graph["13"]["inputs"]["denoise"] = denoise
    params = read(graph, SDXL).params
    assert params.num_inference_steps is not None
    assert params.strength is not None
    # Both roundings of diffusers' pipelines leave exactly these steps.
    assert int(params.num_inference_steps * params.strength) == steps
    assert params.num_inference_steps * params.strength == steps
    longer = params.num_inference_steps / int(steps / denoise)
    assert 1 <= longer < 1.1


def kontext(**latent: Any) -> Sent:
    return separate_files(
        **{
            "4": node("LoadImage", image="a.png"),
            "7": node("EmptySD3LatentImage", **SIZE),
            "10": node("FluxKontextImageScale", image=["4", 0]),
            "11": node("VAEEncode", pixels=["10", 0], vae=["3", 0]),
            "12": node("ReferenceLatent", conditioning=["5", 0], latent=["11", 0]),
            "14": node("FluxGuidance", conditioning=["12", 0], guidance=2.5),
            "6": node("ConditioningZeroOut", conditioning=["5", 0]),
            "13": sampled(cfg=1.0, positive=["14", 0], **latent),
        }
    )


def test_reference_latent_is_an_image_to_edit() -> None:
    model = model_of("flux_kontext")
    sampling = read(kontext(latent_image=["11", 0]), model)
    assert "image" in sampling.pictures
    assert sampling.pictures["image"].file == "a.png"
    assert asked(sampling, "width", "height", "strength", "guidance_scale") == (None,) * 3 + (2.5,)
    assert not sampling.sized_by
    assert asked(read(kontext(), model), "width", "height") == (512, 256)
    with pytest.raises(InvalidInput, match="Custom validation failed"):
        read(kontext(), FLUX)


def test_qwen_edit_takes_the_size_of_the_scaled_image() -> None:
    scale = {"upscale_method": "lanczos", "megapixels": 1.0}
    prompt = {"clip": ["2", 0], "vae": ["3", 0], "image": ["10", 0]}
    graph = separate_files(
        "qwen_image",
        **{
            "4": node("LoadImage", image="a.png"),
            "10": node("ImageScaleToTotalPixels", image=["4", 0], **scale),
            "11": node("CFGNorm", model=["1", 0], strength=1.0),
            "5": node("TextEncodeQwenImageEdit", prompt="make it blue", **prompt),
            "6": node("TextEncodeQwenImageEdit", prompt="", **prompt),
            "7": node("VAEEncode", pixels=["10", 0], vae=["3", 0]),
            "13": sampled(model=["11", 0]),
        },
    )
    sampling = read(graph, model_of("qwen_image_edit"))
    assert sampling.pictures["image"] == LoadedImage(
        "4", "a.png", (ScaleStep("lanczos", megapixels=1.0),)
    )
    assert sampling.sized_by == "image"
    assert asked(sampling, "prompt", "negative_prompt", "strength") == ("make it blue", "", None)


def several(images: dict[str, Any], prompt: str = "both", **nodes: Any) -> Sent:
    """A graph that shows the pictures a.png, b.png and c.png, of the nodes 20 to 22."""
    loaders = {str(20 + i): node("LoadImage", image=f"{name}.png") for i, name in enumerate("abc")}
    encoder = node("TextEncodeQwenImageEditPlus", clip=["2", 0], prompt=prompt, **images)
    return separate_files("qwen_image", **{**loaders, "5": encoder, "13": sampled(), **nodes})


def files(sampling: Sampling) -> dict[str, str]:
    return {name: image.file for name, image in sampling.pictures.items()}


ABC = {"image": "a.png", "image_2": "b.png", "image_3": "c.png"}


def test_qwen_edit_plus_shows_several_images_in_their_order() -> None:
    images = {f"image{i}": [str(19 + i), 0] for i in (1, 2, 3)}
    sampling = read(several(images), model_of("qwen_image_edit"))
    assert (files(sampling), sampling.sized_by) == (ABC, "")
    assert asked(sampling, "prompt", "width", "height") == ("both", 512, 256)
    with pytest.raises(InvalidInput) as error:
        read(several(images), model_of("flux_kontext"))
    assert "3 images: flux_kontext takes at most 1" in error.value.problem["details"]
    assert error.value.node == "21"


def test_a_batch_is_several_images() -> None:
    pair = node("ImageBatch", image1=["20", 0], image2=["21", 0])
    batch = node("ImageBatch", image1=["30", 0], image2=["22", 0])
    graph = several({"image1": ["31", 0]}, **{"30": pair, "31": batch})
    assert files(read(graph, model_of("qwen_image_edit"))) == ABC
    graph["32"] = node("VAEEncode", pixels=["31", 0], vae=["3", 0])
    graph["13"] = sampled(latent_image=["32", 0])
    with pytest.raises(InvalidInput) as error:
        read(graph, model_of("qwen_image_edit"))
    assert "must be a loaded image, not several images" in error.value.problem["details"]


def test_the_latent_says_which_of_several_images_gives_the_size() -> None:
    encoded = node("VAEEncode", pixels=["21", 0], vae=["3", 0])
    graph = several({"image1": ["20", 0], "image2": ["21", 0]}, **{"7": encoded})
    sampling = read(graph, model_of("qwen_image_edit"))
    assert files(sampling) == {"image": "a.png", "image_2": "b.png"}
    assert sampling.sized_by == "image_2"
    graph["7"] = node("VAEEncode", pixels=["22", 0], vae=["3", 0])
    with pytest.raises(InvalidInput):
        read(graph, model_of("qwen_image_edit"))


def test_a_chain_of_reference_latents_is_several_images() -> None:
    chain = {
        key: each
        for i in (0, 1, 2)
        for key, each in (
            (f"{30 + i}", node("VAEEncode", pixels=[f"{20 + i}", 0], vae=["3", 0])),
            (
                f"{40 + i}",
                node(
                    "ReferenceLatent",
                    conditioning=[f"{39 + i}" if i else "5", 0],
                    latent=[f"{30 + i}", 0],
                ),
            ),
        )
    }
    text = {"5": node("CLIPTextEncode", clip=["2", 0], text="both")}
    graph = several({}, **text, **chain, **{"13": sampled(positive=["42", 0])})
    assert files(read(graph, model_of("flux2"))) == ABC


def test_an_image_that_encoder_and_denoiser_are_given_is_one() -> None:
    latent = node("VAEEncode", pixels=["20", 0], vae=["3", 0])
    shown = node("ReferenceLatent", conditioning=["5", 0], latent=["30", 0])
    nodes = {"30": latent, "31": shown, "13": sampled(positive=["31", 0])}
    graph = several({"image1": ["20", 0], "image2": ["21", 0]}, **nodes)
    named = {"image": "a.png", "image_2": "b.png"}
    assert files(read(graph, model_of("qwen_image_edit"))) == named


def test_several_images_are_loaded_by_their_names() -> None:
    sizes = {"a.png": (64, 64), "b.png": (40, 80), "c.png": (96, 32)}
    stored = {
        name: encode_image(np.zeros((*size, 3), np.uint8), "png") for name, size in sizes.items()
    }
    images = {f"image{i}": [str(19 + i), 0] for i in (1, 2, 3)}
    sampling = read(several(images), model_of("qwen_image_edit"))
    loaded = PictureLoader(stored.get, 16, 10**6).load(sampling.pictures, None)
    shapes = {name: pixels.shape[:2] for name, pixels in loaded.items()}
    assert shapes == {"image": (64, 64), "image_2": (32, 80), "image_3": (96, 32)}


def test_first_and_last_frame_of_a_video() -> None:
    video = {"width": 832, "height": 480, "length": 33, "batch_size": 1}
    both = {"positive": ["5", 0], "negative": ["6", 0], "vae": ["3", 0]}
    seen = {"clip_vision": ["15", 0], "crop": "none"}
    graph = wan_graph(
        **{
            "10": node("LoadImage", image="a.png"),
            "11": node("LoadImage", image="b.png"),
            "15": node("CLIPVisionLoader", clip_name="served"),
            "16": node("CLIPVisionEncode", image=["11", 0], **seen),
            "7": node(
                "WanFirstLastFrameToVideo",
                clip_vision_end_image=["16", 0],
                start_image=["10", 0],
                end_image=["11", 0],
                **both,
                **video,
            ),
            "13": sampled(positive=["7", 0], negative=["7", 1], latent_image=["7", 2]),
        }
    )
    sampling = read(graph, model_of("wan_image_to_video"))
    step = ScaleStep("bilinear", 832, 480, centre=True)
    assert sampling.pictures == {
        "image": LoadedImage("10", "a.png", (step,)),
        "last_image": LoadedImage("11", "b.png", (step,)),
    }
    graph["16"]["inputs"]["image"] = ["10", 0]
    with pytest.raises(InvalidInput, match="Custom validation failed") as error:
        read(graph, model_of("wan_image_to_video"))
    assert error.value.input_name == "clip_vision_end_image"


VACE = msgspec.structs.replace(
    WAN,
    tasks=("text-to-video", "reference-to-video", "video-to-video"),
    limits=msgspec.structs.replace(WAN.limits, max_images=2),
)


def test_references_of_a_video() -> None:
    video = {"width": 832, "height": 480, "length": 33, "batch_size": 1, "strength": 1.0}
    both = {"positive": ["5", 0], "negative": ["6", 0], "vae": ["3", 0]}
    graph = wan_graph(
        **{
            "10": node("LoadImage", image="a.png"),
            "11": node("LoadImage", image="b.png"),
            "12": node("ImageBatch", image1=["10", 0], image2=["11", 0]),
            "7": node("WanVaceToVideo", reference_image=["12", 0], **both, **video),
            "13": sampled(positive=["7", 0], negative=["7", 1], latent_image=["7", 2]),
            "14": node("TrimVideoLatent", samples=["13", 0], trim_amount=["7", 3]),
            "8": node("VAEDecode", samples=["14", 0], vae=["3", 0]),
        }
    )
    sampling = read(graph, VACE)
    assert files(sampling) == {"image": "a.png", "image_2": "b.png"}
    assert asked(sampling, "width", "height", "num_frames") == (832, 480, 33)
    with pytest.raises(InvalidInput) as error:
        read(graph, WAN)
    assert "wan, which supports text-to-video" in error.value.problem["details"]
    graph["7"]["inputs"]["control_video"] = ["12", 0]
    with pytest.raises(InvalidInput) as error:
        read(graph, VACE)
    assert error.value.input_name == "control_video"


def test_first_frame_of_a_video() -> None:
    video = {"width": 832, "height": 480, "length": 33, "batch_size": 1}
    graph = wan_graph(
        **{
            "10": node("LoadImage", image="a.png"),
            "11": node("CLIPVisionLoader", clip_name="served"),
            "12": node("CLIPVisionEncode", clip_vision=["11", 0], image=["10", 0], crop="none"),
            "7": node(
                "WanImageToVideo",
                positive=["5", 0],
                negative=["6", 0],
                vae=["3", 0],
                clip_vision_output=["12", 0],
                start_image=["10", 0],
                **video,
            ),
            "13": sampled(positive=["7", 0], negative=["7", 1], latent_image=["7", 2]),
        }
    )
    sampling = read(graph, model_of("wan_image_to_video"))
    step = ScaleStep("bilinear", 832, 480, centre=True)
    assert sampling.pictures["image"] == LoadedImage("10", "a.png", (step,))
    assert asked(sampling, "width", "height", "num_frames", "strength") == (832, 480, 33, None)
    with pytest.raises(InvalidInput):
        read(graph, WAN)


def test_ltx_with_its_own_schedule() -> None:
    video = {"width": 768, "height": 512, "length": 33, "batch_size": 1}
    rate = {"positive": ["5", 0], "negative": ["6", 0], "frame_rate": 25.0}
    shift = {"steps": 30, "max_shift": 2.05, "base_shift": 0.95, "stretch": True, "terminal": 0.1}
    graph = separate_files(
        "ltxv",
        **{
            "7": node("EmptyLTXVLatentVideo", **video),
            "10": node("LTXVConditioning", **rate),
            "11": node("LTXVScheduler", latent=["7", 0], **shift),
            "12": node("KSamplerSelect", sampler_name="euler"),
            "13": node(
                "SamplerCustom",
                model=["1", 0],
                add_noise=True,
                noise_seed=1,
                cfg=3.0,
                positive=["10", 0],
                negative=["10", 1],
                sampler=["12", 0],
                sigmas=["11", 0],
                latent_image=["7", 0],
            ),
        },
    )
    sampling = read(graph, model_of("ltx"))
    assert asked(sampling, "num_frames", "fps", "num_inference_steps") == (33, 25, 30)
    assert not any("LTXVScheduler" in warning for warning in texts(sampling.warnings))


def test_outpainting_pads_the_image() -> None:
    border = {"left": 0, "top": 0, "right": 32, "bottom": 0, "feathering": 8}
    graph = separate_files(
        **{
            "4": node("LoadImage", image="a.png"),
            "10": node("ImagePadForOutpaint", image=["4", 0], **border),
            "7": node(
                "InpaintModelConditioning",
                positive=["5", 0],
                negative=["6", 0],
                vae=["3", 0],
                pixels=["10", 0],
                mask=["10", 1],
                noise_mask=False,
            ),
            "13": sampled(positive=["7", 0], negative=["7", 1], latent_image=["7", 2]),
        }
    )
    sampling = read(graph, model_of("flux_fill"))
    file = encode_image(np.zeros((64, 64, 3), np.uint8), "png")
    pictures = PictureLoader({"a.png": file}.get, 16, 10**6).load(sampling.pictures, sampling.mask)
    assert pictures["image"].shape == (64, 96, 3)
    assert pictures["image"][0, 80].tolist() == [128] * 3
    mask = pictures["mask"]
    assert mask[:, 64:].min() == 255
    assert mask[:, :56].max() == 0
    assert 0 < mask[32, 60] < 255


def test_constants_and_image_sizes_can_be_linked() -> None:
    image = node("LoadImage", image="a.png")
    graph = separate_files(
        **{
            "4": image,
            "10": node("GetImageSize", image=["4", 0]),
            "11": node("PrimitiveInt", value=9),
            "12": node("PrimitiveStringMultiline", value="a blue heart"),
            "13": sampled(steps=["11", 0]),
        }
    )
    graph["5"]["inputs"]["text"] = ["12", 0]
    graph["7"]["inputs"]["batch_size"] = ["11", 0]
    params = read(graph, SDXL).params
    assert (params.prompt, params.num_inference_steps) == ("a blue heart", 9)
    assert params.num_outputs_per_prompt == 9
    graph["7"]["inputs"]["width"] = ["10", 0]
    graph["12"]["inputs"]["value"] = "a green heart"
    with pytest.raises(InvalidInput) as error:
        read(graph, SDXL)
    assert error.value.input_name == "width"


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (ScaleStep("lanczos", 100, 50), (10, 10), (100, 50)),
        (ScaleStep("area", 0, 50), (20, 10), (100, 50)),
        (ScaleStep("area", 50, 0), (20, 10), (50, 25)),
        (ScaleStep("area"), (20, 10), (20, 10)),
        (ScaleStep("bicubic", factor=0.5), (21, 10), (10, 5)),
        (ScaleStep("bilinear", longest=40), (20, 10), (40, 20)),
        (ScaleStep("bilinear", megapixels=1.0), (512, 512), (1024, 1024)),
        (CropStep(5, 5, 100, 2), (20, 10), (15, 2)),
        (CropStep(50, 50, 8, 8), (20, 10), (1, 1)),
        (PadStep(1, 2, 3, 4), (20, 10), (24, 16)),
    ],
)
def test_steps_give_the_size_that_they_announce(
    step: ScaleStep | CropStep | PadStep, before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert step.size(before) == after
    assert step.apply(Image.new("RGBA", before)).size == after


def test_scaled_image_must_not_exceed_the_limit() -> None:
    file = encode_image(np.zeros((64, 64, 3), np.uint8), "png")
    image = LoadedImage("1", "a.png", (ScaleStep("area", 16384, 16384),))
    with pytest.raises(InvalidInput, match="Custom validation failed"):
        PictureLoader({"a.png": file}.get, 16, 10**6).load({"image": image}, None)


def test_steps_of_an_image_are_limited() -> None:
    scale = {"upscale_method": "area", "scale_by": 1.0}
    steps = {str(n): node("ImageScaleBy", image=[str(n - 1), 0], **scale) for n in range(21, 40)}
    graph = separate_files(
        **{
            "20": node("LoadImage", image="a.png"),
            **steps,
            "7": node("VAEEncode", pixels=["39", 0], vae=["3", 0]),
            "13": sampled(),
        }
    )
    with pytest.raises(InvalidInput) as error:
        read(graph, SDXL)
    assert (error.value.node, error.value.input_name) == ("29", "image")


def test_border_of_a_mask_must_not_exceed_the_limit() -> None:
    file = encode_image(np.zeros((64, 64, 3), np.uint8), "png")
    image = LoadedImage("1", "a.png")
    mask = LoadedMask(image, border=PadStep(16384, 0, 16384, 0))
    with pytest.raises(InvalidInput, match="Custom validation failed"):
        PictureLoader({"a.png": file}.get, 16, 10**6).load({"image": image}, mask)


def test_memory_of_steps_counts_until_the_result_is_freed() -> None:
    room = Room(10**7, 10**7, "large input images")
    file = encode_image(np.zeros((64, 64, 3), np.uint8), "png")
    image = LoadedImage("1", "a.png", (ScaleStep("area", 512, 512),))
    loader = PictureLoader({"a.png": file}.get, 16, 10**7)
    token = picture_memory.set(partial(Hold, room, "me"))
    try:
        pictures = loader.load({"image": image}, None)
        assert room.held == pictures["image"].nbytes == 512 * 512 * 3
        del pictures
        assert room.held == 0
        with pytest.raises(QueueFull):
            loader.load({"image": image.then(ScaleStep("area", 3000, 3000))}, None)
        assert room.held == 0
    finally:
        picture_memory.reset(token)


@given(by=st.integers(0, 70), sides=st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_mask_grows_by_squares(by: int, sides: tuple[int, int]) -> None:
    mask = np.random.default_rng(by).integers(0, 256, sides, dtype=np.uint8)
    half = by // 2
    padded = np.pad(mask, half)
    expected = [
        [padded[y : y + 2 * half + 1, x : x + 2 * half + 1].max() for x in range(sides[1])]
        for y in range(sides[0])
    ]
    assert np.array_equal(_grown(mask, by), expected)


@pytest.mark.parametrize(
    ("sampler", "solver", "same"),
    [
        ("euler", "euler", True),
        ("dpmpp_2m_sde_gpu", "dpmpp_2m_sde", True),
        ("er_sde", "dpmpp_2m_sde", False),
        ("euler_cfg_pp", "euler", False),
    ],
)
def test_nearest_solver_of_a_sampler(sampler: str, solver: str, same: bool) -> None:
    known = ("ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_sde")
    assert nearest(sampler, known) == (solver, same)


@pytest.mark.parametrize(
    ("model", "scheduler", "schedule", "warned"),
    [
        (SDXL, "karras", "karras", False),
        (SDXL, "normal", None, False),
        (SDXL, "kl_optimal", None, True),
        (SDXL, "linear_quadratic", None, True),
        (FLUX, "simple", "simple", False),
        (FLUX, "beta", "beta", False),
        (FLUX, "ddim_uniform", None, True),
    ],
)
def test_schedulers_are_noise_schedules(
    model: ModelInfo, scheduler: str, schedule: str | None, warned: bool
) -> None:
    sampling = read(default_graph(scheduler=scheduler), model)
    assert sampling.params.noise_schedule == schedule
    assert any(f"scheduler={scheduler} has" in each for each in texts(sampling.warnings)) is warned


@pytest.mark.parametrize(("steps", "warned"), [(1, False), (4, True)])
def test_turbo_scheduler(steps: int, warned: bool) -> None:
    graph = advanced_flux()
    graph["11"] = node("SDTurboScheduler", model=["1", 0], steps=steps, denoise=1.0)
    sampling = read(graph, SDXL)
    assert asked(sampling, "noise_schedule", "num_inference_steps") == (None, steps)
    assert any("SDTurboScheduler 11" in warning for warning in texts(sampling.warnings)) is warned


def test_karras_scheduler_with_limits_of_its_own() -> None:
    graph = advanced_flux()
    limits = {"sigma_max": 14.614642, "sigma_min": 0.1, "rho": 7.0}
    graph["11"] = node("KarrasScheduler", steps=20, **limits)
    sampling = read(graph, SDXL)
    assert asked(sampling, "noise_schedule", "num_inference_steps") == ("karras", 20)
    assert any(
        "KarrasScheduler 11: sigma_min=0.1" in warning for warning in texts(sampling.warnings)
    )


@pytest.mark.parametrize("family", ["flux", "wan", "stable_diffusion_xl", "cogvideox"])
def test_each_sampler_of_the_menu_has_a_solver(family: str) -> None:
    views = {"stable_diffusion_xl": View.NOISE, "cogvideox": View.SHIFTED_NOISE}
    model = model_of(family, views.get(family, View.FLOW))
    menu = menu_of(model.schedulers)
    assert len(menu) > 40
    for sampler in menu:
        assert nearest(sampler, model.schedulers)[0] in model.schedulers


def test_sampler_without_a_solver_is_named_with_the_one_used() -> None:
    graph = default_graph(sampler_name="gradient_estimation", scheduler="kl_optimal")
    sampling = read(graph, FLUX)
    assert sampling.params.scheduler == "flow_euler"
    said = " ".join(texts(sampling.warnings))
    assert (
        "KSampler 3: sampler_name=gradient_estimation is not available: flux uses flow_euler"
        in said
    )
    assert "scheduler=kl_optimal" in said


def test_documentation_lists_all_nodes() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "comfyui.md"
    listed = page.read_text().partition("`GET /object_info`")[0]
    assert [name for name in definitions_for(FLUX) if f"`{name}`" not in listed] == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DiffControlNetLoader", "loaded by ControlNetLoader"),
        ("Canny", "preprocessors are not available"),
        ("LatentComposite", "between two samplers"),
        ("IPAdapterUnifiedLoader", "use ControlNetLoader"),
        ("SomeoneElsesNode", "/object_info"),
    ],
)
def test_other_nodes_are_refused_with_a_reason(name: str, reason: str) -> None:
    graph = {**default_graph(), "50": node(name)}
    with pytest.raises(InvalidPrompt) as error:
        read(graph, SDXL)
    assert name in error.value.error["message"]
    assert reason in error.value.error["message"]


_NODES = definitions_for(model_of("flux2"), loras=("ink",), uploads=("a.png",))


def _inputs_of(spec: Input) -> st.SearchStrategy[Any]:
    linked = st.tuples(st.integers(0, 11).map(str), st.integers(0, 2)).map(list)
    values: dict[str, st.SearchStrategy[Any]] = {
        "INT": st.integers(0, 64),
        "FLOAT": st.floats(0, 8),
        "STRING": st.sampled_from(["", "a", None]),
        "BOOLEAN": st.booleans(),
        "COMBO": st.sampled_from(spec.choices or ("x",)),
    }
    return st.one_of(values[spec.type], linked) if spec.is_value else linked


@st.composite
def _graphs(draw: st.DrawFn) -> Sent:
    kinds = draw(st.lists(st.sampled_from(sorted(_NODES)), min_size=3, max_size=11))
    return {
        str(key): node(
            kind, **{name: draw(_inputs_of(spec)) for name, spec in _NODES[kind].inputs.items()}
        )
        for key, kind in enumerate(kinds)
    }


@settings(max_examples=150, deadline=None)
@given(sent=_graphs())
def test_any_graph_of_known_nodes_is_taken_or_refused(sent: Sent) -> None:
    model = model_of("flux2")
    try:
        graph = Graph.of(sent, _NODES)
        translator = GraphTranslator(graph, model, ("ink",))
        for output in graph.outputs:
            if not graph.order(output)[1]:
                translator.translate(translator.result_of(output).sampled)
    except (InvalidPrompt, InvalidInput):
        pass


def switched(on: bool) -> Sent:
    """A LoRA and fewer steps, if a switch is on."""
    lora = {"lora_name": "fast", "strength_model": 1.0}
    return separate_files(
        "qwen_image",
        **{
            "20": node("PrimitiveBoolean", value=on),
            "21": node("LoraLoaderModelOnly", model=["1", 0], **lora),
            "22": node("ComfySwitchNode", switch=["20", 0], on_false=["1", 0], on_true=["21", 0]),
            "23": node("PrimitiveInt", value=20),
            "24": node(
                "ComfyMathExpression", expression="floor(a / 3) + 1", **{"values.a": ["23", 0]}
            ),
            "25": node("ComfySwitchNode", switch=["20", 0], on_false=["23", 0], on_true=["24", 1]),
            "13": sampled(model=["22", 0], steps=["25", 0]),
        },
    )


def test_switch_needs_one_of_its_inputs() -> None:
    model = model_of("qwen_image")
    on, off = read(switched(True), model, ("fast",)), read(switched(False), model)
    assert asked(on, "num_inference_steps", "lora") == (7, (LoraChoice("fast"),))
    assert asked(off, "num_inference_steps", "lora") == (20, ())
    assert not any("LoraLoader" in warning for warning in texts(off.warnings))
    graph = switched(False)
    graph["21"]["inputs"]["model"] = ["77", 0]  # Not needed, therefore not looked at.
    assert read(graph, model).params.lora == ()


def test_texts_and_sizes_can_be_computed() -> None:
    graph = separate_files(
        **{
            "20": node("StringConcatenate", string_a="a red", string_b="heart", delimiter=" "),
            "21": node("ResolutionSelector", aspect_ratio="16:9 (Widescreen)", megapixels=1.0),
            "13": sampled(),
        }
    )
    graph["5"]["inputs"]["text"] = ["20", 0]
    graph["7"]["inputs"] |= {"width": ["21", 0], "height": ["21", 1]}
    params = read(graph, SDXL).params
    assert (params.prompt, params.width, params.height) == ("a red heart", 1368, 768)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a * b + 1", 21),
        ("((a + 15) // 16) * 16", 16),
        ("max(5, round(a * 24)) % 17", 11),
        ("b & ~1", 4),
        ("-a / 2", -2.0),
        ("a > 2", True),
    ],
)
def test_arithmetic(expression: str, value: float) -> None:
    assert evaluate(expression, {"a": 4, "b": 5}) == value


@pytest.mark.parametrize(
    "expression",
    [
        *("2 ** 99", "a << 99", "c", "__import__('os')", "a.real", "(lambda: 1)()", "[1][0]"),
        *("", "a +", "1 / 0", "'x' * 9", "f'{a}'", "a if a else b", "(" * 150, "1" * 999),
        *("min(a, key=a)", "round(1e308 * 10)", "int('9')", "a and b"),
    ],
)
def test_other_code_is_no_arithmetic(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        evaluate(expression, {"a": 4, "b": 5})
