"""Which component a LoRA applies to: by the name of its file, or by the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import load, run
from loras import diffusers_keys, random_lora, write
from tiny_checkpoints import stock_pipeline

from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.validation import resolve
from multimodal_gen.runtime.layers.lora import Lora, LoraUse
from multimodal_gen.runtime.loader.lora.experts import expert_of
from multimodal_gen.runtime.pipelines.adapter_readers import lora_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 64,
    "num_frames": 5,
    "num_inference_steps": 4,
    "guidance_scale": 5.0,
    "negative_prompt": "",
    "max_sequence_length": 32,
}


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("style_low_noise", 1),
        ("style-LowNoise-v2", 1),
        ("lownoise", 1),
        ("Wan2.2_LOW_ink", 1),
        ("ink_low", 1),
        ("wan22_inkLOW_fp16", 1),
        ("Wan22-I2V-Low-rank64", 1),
        ("ink_high_noise", 0),
        ("Wan2.2_HIGH_ink", 0),
        ("ink_high", 0),
        ("low_poly_high_noise", 0),
        ("highway_slow_glow", None),
        ("HIGH_and_LOW", None),
        ("below", None),
        ("ink", None),
    ],
)
def test_the_name_says_the_expert(name: str, expert: int | None) -> None:
    assert expert_of(name) == expert


@pytest.fixture(scope="module")
def wan22(checkpoints: Callable[..., Path]) -> ComposedPipeline:
    return load(checkpoints("wan22"))


@pytest.fixture(scope="module")
def folder(
    checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> LoraFolder:
    root = tmp_path_factory.mktemp("loras")
    stock = stock_pipeline(checkpoints("wan22"))
    keys = diffusers_keys("transformer", random_lora(stock.transformer, "to_q to_v"))
    for name in ("ink", "ink_LOW_fp16", "ink_HIGH"):
        write(root / f"{name}.safetensors", keys)
    return LoraFolder(root)


def component(pipeline: ComposedPipeline, lora: Lora) -> str:
    """The one component that it changes."""
    (found,) = [
        name
        for name in pipeline.lora_targets
        if set(pipeline.components[name].modules()).issuperset(lora.terms)
    ]
    return found


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("ink_LOW_fp16", None, "transformer_2"),
        ("ink_HIGH", None, "transformer"),
        ("ink", None, "transformer"),
        ("ink", "transformer_2", "transformer_2"),
        ("ink_LOW_fp16", "transformer", "transformer"),
    ],
)
def test_a_target_goes_before_the_name(
    wan22: ComposedPipeline, folder: LoraFolder, name: str, target: str | None, expected: str
) -> None:
    lora = lora_reader(wan22).read(folder.find(name), target)
    assert component(wan22, lora) == expected


def test_a_name_that_says_no_expert_is_warned_about(
    wan22: ComposedPipeline, folder: LoraFolder
) -> None:
    reader = lora_reader(wan22)
    (warning,) = reader.read(folder.find("ink")).warnings
    assert "applied to transformer only" in warning
    assert "transformer, transformer_2" in warning
    assert reader.read(folder.find("ink"), "transformer").warnings == ()
    assert reader.read(folder.find("ink_HIGH")).warnings == ()


def test_a_file_with_keys_of_both_experts_applies_as_they_say(
    wan22: ComposedPipeline, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    module = stock_pipeline(checkpoints("wan22")).transformer
    keys = diffusers_keys("transformer_2", random_lora(module, "to_q"))
    write(tmp_path / "second_HIGH.safetensors", keys)
    keys |= diffusers_keys("transformer", random_lora(module, "to_q", seed=1))
    write(tmp_path / "both.safetensors", keys)
    reader, found = lora_reader(wan22), LoraFolder(tmp_path)
    for name, target, expected in (
        ("second_HIGH", None, ["transformer_2"]),
        ("second_HIGH", "transformer", ["transformer"]),
        ("both", None, ["transformer", "transformer_2"]),
        ("both", "transformer_2", ["transformer_2"]),
    ):
        lora = reader.read(found.find(name), target)
        assert lora.warnings == ()
        assert [
            each
            for each in ("transformer", "transformer_2")
            if not set(wan22.components[each].modules()).isdisjoint(lora.terms)
        ] == expected
        assert all(len(terms) == 1 for terms in lora.terms.values())


def test_one_file_applies_to_both_experts_at_two_scales(
    wan22: ComposedPipeline, folder: LoraFolder
) -> None:
    reader = lora_reader(wan22)
    targets = {1000: ("transformer", 0.9), 1001: ("transformer_2", -0.4)}
    for key, (target, _) in targets.items():
        wan22.loras.add(key, reader.read(folder.find("ink"), target))
    uses = [LoraUse(key, scale) for key, (_, scale) in targets.items()]
    params = SamplingParams(**CALL)
    both = run(wan22, params, loras=uses).latents
    for key, (target, scale) in targets.items():
        wan22.loras.remove(key)
        layer = wan22.components[target].blocks[0]
        assert not layer.qkv.loras
        change(wan22, folder, target, scale)
    merged = run(wan22, params).latents
    for target, scale in targets.values():
        change(wan22, folder, target, -scale)
    torch.testing.assert_close(both, merged, rtol=1e-3, atol=1e-3)
    assert (both - run(wan22, params).latents).abs().max() > 0.01


def change(pipeline: ComposedPipeline, folder: LoraFolder, target: str, scale: float) -> None:
    """Add the LoRA to the weights themselves."""
    lora = lora_reader(pipeline).read(folder.find("ink"), target)
    for module, terms in lora.terms.items():
        for term in terms:
            product = getattr(term, "up") @ getattr(term, "down")  # noqa: B009
            rows = getattr(module, "weight")[term.start : term.start + term.channels]  # noqa: B009
            rows += scale * term.scale * product
        setattr(module, "packed", None)  # noqa: B010 - a copy of the weights as they were


def test_a_target_leaves_out_the_other_components(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = checkpoints("sd15")
    stock, pipeline = stock_pipeline(checkpoint), load(checkpoint)
    keys = diffusers_keys("unet", random_lora(stock.unet, "to_q"))
    write(tmp_path / "unet.safetensors", keys)
    keys |= diffusers_keys("text_encoder", random_lora(stock.text_encoder, "q_proj"))
    write(tmp_path / "both.safetensors", keys)
    reader, found = lora_reader(pipeline), LoraFolder(tmp_path)
    for target in ("unet", "text_encoder"):
        lora = reader.read(found.find("both"), target)
        assert component(pipeline, lora) == target
        assert lora.of_encoders == (target == "text_encoder")
        assert lora.warnings == ()
    nothing = reader.read(found.find("unet"), "text_encoder")
    assert not nothing.terms
    assert nothing.warnings == (
        "lora='unet': without effect, as it has no weights for text_encoder",
    )


def test_targets_are_named_by_the_model(wan22: ComposedPipeline) -> None:
    model = wan22.model_info("test")
    assert model.lora_targets == ("transformer", "transformer_2", "text_encoder")
    params = SamplingParams(**CALL, lora=["ink:1@transformer", "ink:0.5@transformer_2"])
    assert len(resolve(params, model).lora) == 2
    with pytest.raises(InvalidRequest, match="lora='unet': target must be transformer or tran"):
        resolve(replace(params, lora=("ink@unet",)), model)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="lora='ink': is given twice"):
        resolve(replace(params, lora=("ink@unet", "ink:2@unet")), model)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="target must be the name of a component"):
        SamplingParams(lora={"name": "ink", "target": 2})  # type: ignore[arg-type]
