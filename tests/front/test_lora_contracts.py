"""What LoRAs for few steps were made for: by name, as defaults of requests that use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save_file

from multimodal_gen.checkpoints.lora.about import LoraAbout
from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.configs.lora.contracts import contract_of
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import SOLVERS
from multimodal_gen.messages.model_defaults import Defaults
from multimodal_gen.messages.model_info import Limits, ModelInfo
from multimodal_gen.messages.validation import resolve, with_lora_defaults

MODEL = ModelInfo(
    name="test",
    family="test",
    tasks=("text-to-image",),
    defaults=Defaults(width=64, height=64, num_inference_steps=50, true_cfg_scale=4.0),
    limits=Limits(),
    size_multiple=16,
    parameters=("lora", "true_cfg_scale", "flow_shift"),
    schedulers=("flow_euler",),
)
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "Qwen-Image-Lightning-4steps-V1.0-bf16",
            {"num_inference_steps": 4, "true_cfg_scale": 1.0, "flow_shift": 3.0},
        ),
        (
            "Qwen-Image-Edit-2509-Lightning-8steps-V1.0",
            {"num_inference_steps": 8, "true_cfg_scale": 1.0, "flow_shift": 3.0},
        ),
        (
            "Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32",
            {"num_inference_steps": 4, "guidance_scale": 1.0, "flow_shift": 5.0},
        ),
        (
            "sdxl_lightning_8step_lora",
            {
                "num_inference_steps": 8,
                "guidance_scale": 1.0,
                "scheduler": "euler",
                "timestep_spacing": "trailing",
            },
        ),
        (
            "Hyper-SDXL-1step-lora",
            {"num_inference_steps": 1, "guidance_scale": 1.0, "scheduler": "tcd"},
        ),
        (
            "Hyper-SD15-12steps-CFG-lora",
            {
                "num_inference_steps": 12,
                "guidance_scale": 5.0,
                "scheduler": "ddim",
                "timestep_spacing": "trailing",
            },
        ),
        ("Hyper-SD3-4steps-CFG-lora", {"num_inference_steps": 4, "guidance_scale": 3.0}),
        ("Hyper-SD3-8steps-CFG-lora", {"num_inference_steps": 8, "guidance_scale": 5.0}),
        ("Hyper-SD3-16steps-CFG-lora", {"num_inference_steps": 16, "guidance_scale": 7.0}),
        (
            "wan2.1_t2v_14b_lora_rank64_lightx2v_4step",
            {"num_inference_steps": 4, "guidance_scale": 1.0, "flow_shift": 5.0},
        ),
        (
            "Flux_2-Turbo-LoRA_comfyui",
            {
                "num_inference_steps": 8,
                "guidance_scale": 2.5,
                "sigmas": (1.0, 0.6509, 0.4374, 0.2932, 0.1893, 0.1108, 0.0495, 0.00031),
            },
        ),
        (
            "TCD-SDXL-LoRA",
            {"num_inference_steps": 4, "guidance_scale": 1.0, "scheduler": "tcd"},
        ),
        ("FLUX.1-Turbo-Alpha", {"num_inference_steps": 8, "guidance_scale": 3.5}),
        (
            "lcm-lora-sdv1-5",
            {"num_inference_steps": 4, "guidance_scale": 1.0, "scheduler": "lcm"},
        ),
        (
            "dmd2_sdxl_4step_lora_fp16",
            {"num_inference_steps": 4, "guidance_scale": 1.0, "scheduler": "lcm"},
        ),
        (
            "ltx-2-19b-distilled-lora-384",
            {
                "num_inference_steps": 8,
                "guidance_scale": 1.0,
                "audio_guidance_scale": 1.0,
                "stg_scale": 0.0,
                "modality_scale": 1.0,
                "guidance_rescale": 0.0,
            },
        ),
    ],
)
def test_published_loras_are_recognised_by_name(name: str, expected: dict[str, Any]) -> None:
    contract = contract_of(name)
    assert contract is not None
    assert contract.parameters == expected
    assert contract.parameters.get("scheduler") in (None, *SOLVERS)
    SamplingParams.from_fields(**contract.parameters)


@pytest.mark.parametrize(
    "name",
    ["ink", "lightning_bolts", "Z-Image-Turbo-pixel", "hypernova", "steps_of_4_steps", "qwen-ink"],
)
def test_other_loras_have_none(name: str) -> None:
    assert contract_of(name) is None


@pytest.mark.parametrize("name", ["Hyper-FLUX.1-dev-16steps-lora", "Hyper-SD3-8steps-CFG-lora"])
def test_some_are_told_the_scale_of_their_hyper_lora(name: str) -> None:
    assert "scale=0.125" in str(contract_of(name))


def test_noise_levels_of_a_lora_go_with_its_own_number_of_steps() -> None:
    model = replace(MODEL, parameters=("lora", "sigmas"))
    own = with_lora_defaults(SamplingParams(lora="flux.2-turbo-lora"), model)
    assert (own.num_inference_steps, len(own.sigmas)) == (8, 8)
    asked = SamplingParams(lora="flux.2-turbo-lora", num_inference_steps=20)
    assert with_lora_defaults(asked, model).sigmas == ()


def test_what_a_request_leaves_open_is_what_its_lora_was_made_for() -> None:
    lora = "Qwen-Image-Lightning-4steps"
    resolved = resolve(SamplingParams(prompt="a fox", lora=lora), MODEL)
    assert (resolved.num_inference_steps, resolved.true_cfg_scale) == (4, 1.0)
    assert resolved.flow_shift == 3.0
    own = resolve(SamplingParams(prompt="a fox", lora=lora, num_inference_steps=6), MODEL)
    assert (own.num_inference_steps, own.true_cfg_scale) == (6, 1.0)
    plain = resolve(SamplingParams(prompt="a fox", lora="ink"), MODEL)
    assert (plain.num_inference_steps, plain.true_cfg_scale) == (50, 4.0)


def test_what_the_model_does_not_support_is_left_out() -> None:
    params = with_lora_defaults(SamplingParams(lora="sdxl_lightning_4step_lora"), MODEL)
    assert params.num_inference_steps == 4
    assert params.scheduler is params.timestep_spacing is None


def test_the_noise_levels_of_a_request_stand_for_its_steps() -> None:
    params = SamplingParams(lora="Qwen-Image-Lightning-4steps", sigmas=(1.0, 0.5))
    filled = with_lora_defaults(params, MODEL)
    assert filled.num_inference_steps is filled.flow_shift is None
    assert filled.true_cfg_scale == 1.0


def test_a_lora_without_strength_brings_no_defaults() -> None:
    params = SamplingParams(lora="Qwen-Image-Lightning-4steps:0")
    assert with_lora_defaults(params, MODEL) == params


def test_a_renamed_file_is_known_by_its_title(tmp_path: Path) -> None:
    metadata = {"modelspec.title": "Qwen-Image-Lightning-8steps-V2.0"}
    save_file({"x": torch.zeros(1)}, tmp_path / "fast.safetensors", metadata)
    titles = {"fast": LoraFolder(tmp_path).about("fast").titles}
    filled = with_lora_defaults(SamplingParams(lora="fast"), MODEL, titles)
    assert (filled.num_inference_steps, filled.true_cfg_scale) == (8, 1.0)


def test_trigger_words_and_thumbnail_are_those_of_the_file() -> None:
    about = LoraAbout.of(
        {"modelspec.trigger_phrase": "in ink", "modelspec.thumbnail": PNG, "ss_output_name": "ink"}
    )
    assert about == LoraAbout(titles=("ink",), trigger_words=("in ink",), thumbnail=PNG)


def test_frequent_tags_stand_for_trigger_words() -> None:
    tags = {"10_ink": {"ink": 20, "fox": 3}, "5_more": {"fox": 4, " a\u202eb": 1, "x": "many"}}
    about = LoraAbout.of({"ss_tag_frequency": json.dumps(tags)})
    assert about.trigger_words == ("ink", "fox", "ab")


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_tag_frequency": "{"},
        {"ss_tag_frequency": "[" * 100_000},
        {"ss_tag_frequency": json.dumps([{"a": 1}])},
        {"modelspec.thumbnail": "https://example.org/x.png"},
        {"modelspec.thumbnail": "data:image/svg+xml;base64,AAAA"},
        {"modelspec.thumbnail": "data:image/png;base64," + "A" * 200_000},
        {"modelspec.title": 7, "ss_output_name": "None"},
    ],
)
def test_odd_metadata_say_nothing(metadata: dict[str, Any]) -> None:
    assert LoraAbout.of(metadata) == LoraAbout()


def test_a_file_that_is_no_lora_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "odd.safetensors").write_bytes(b"PK\x03\x04")
    assert LoraFolder(tmp_path).about("odd") == LoraAbout()
    assert LoraFolder(tmp_path).about("none") == LoraAbout()
