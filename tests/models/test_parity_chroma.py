"""Chroma gives what diffusers' ChromaPipeline gives, and its transformer what diffusers' gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ChromaTransformer2DModel
from engineless import run_each, run_joined
from native import parts_of
from parity import check_parity
from tiny_checkpoints import weights

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.dits.chroma.config import ChromaConfig
from multimodal_gen.runtime.models.dits.chroma.keys import chroma_key_map
from multimodal_gen.runtime.models.dits.chroma.model import ChromaTransformer
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "negative_prompt": "blurry",
    "height": 48,
    "width": 80,
    "num_inference_steps": 2,
    "guidance_scale": 4.0,
    "max_sequence_length": 40,
}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("chroma")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7, "negative_prompt": None},
        {"guidance_scale": 1.0, "height": 112, "width": 64},
        {"prompt": "", "max_sequence_length": 512, "num_inference_steps": 1},
        {"prompt": "a cat & “dog” <pad> " * 30},
    ],
    ids=lambda change: ",".join(change),
)
def test_chroma_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_texts_of_other_lengths_share_a_batch(pipeline: ComposedPipeline) -> None:
    requests = [
        SamplingParams(**{**CALL, **change})
        for change in ({"seed": 1}, {"guidance_scale": 1.0}, {"prompt": "a dog " * 30})
    ]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=[0, 1, 1])
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def _reference(**config: Any) -> ChromaTransformer2DModel:
    sizes = {
        "in_channels": 12,
        "num_layers": 2,
        "num_single_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 3,
        "joint_attention_dim": 20,
        "axes_dims_rope": (4, 6, 6),
        "approximator_num_channels": 64,
        "approximator_hidden_dim": 24,
        "approximator_layers": 2,
    }
    reference = ChromaTransformer2DModel(**{**sizes, **config})
    weights.fill(reference, "transformer", 0, torch.float32)
    return reference.eval().requires_grad_(False)


def _native(reference: ChromaTransformer2DModel) -> ChromaTransformer:
    config, theirs = ChromaConfig.from_dict(reference.config), reference.state_dict()
    with torch.device("meta"):
        model = ChromaTransformer(config, parts_of())
    keys = chroma_key_map(config)
    filled = {ours: torch.cat([theirs[name] for name in names]) for ours, names in keys.items()}
    model.load_state_dict(filled, assign=True)
    return model.eval().requires_grad_(False)


def _inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(2, 3 * 5, 12, generator=generator),
        "encoder_hidden_states": torch.randn(2, 7, 20, generator=generator),
        "timestep": torch.rand(2, generator=generator),
    }


EMPHASIS = torch.tensor([[1.0] * 3 + [0.0] * 4, [1.0] * 7])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_layers": 0, "approximator_layers": 0},
        {"num_single_layers": 0, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)},
        {"approximator_num_channels": 8, "out_channels": 4},
    ],
    ids=str,
)
def test_velocity_equals_diffusers(change: dict[str, Any]) -> None:
    reference, inputs = _reference(**change), _inputs()
    model = _native(reference)
    ours = model(**inputs, emphasis=EMPHASIS, rotary=model.rotary(7, ((3, 5),)))
    axes = (torch.arange(n) for n in (1, 3, 5))
    theirs = reference(
        **inputs,
        img_ids=torch.cartesian_prod(*axes),
        txt_ids=torch.zeros(7, 3),
        attention_mask=torch.cat((EMPHASIS, torch.ones(2, 15)), dim=1),
        return_dict=False,
    )[0]
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_the_graph_is_captured_whole() -> None:
    model, inputs = _native(_reference()), {**_inputs(), "emphasis": EMPHASIS}
    inputs["rotary"] = model.rotary(7, ((3, 5),))
    eager = model(**inputs)
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    assert (compiled(**inputs) - eager).norm() < 1e-5 * eager.norm()


def test_key_map_names_every_parameter_and_every_tensor_once() -> None:
    reference = _reference()
    keys = chroma_key_map(ChromaConfig.from_dict(reference.config))
    assert sorted(keys) == sorted(_native(reference).state_dict())
    assert sorted(name for names in keys.values() for name in names) == sorted(
        reference.state_dict()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("axes_dims_rope", [32, 32]), ("approximator_num_channels", 60), ("guidance_embeds", True)],
)
def test_a_config_that_is_not_chroma_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidCheckpoint, match=field):
        ChromaConfig.from_dict({"_class_name": "ChromaTransformer2DModel", field: value})
