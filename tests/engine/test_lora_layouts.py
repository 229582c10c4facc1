"""A LoRA file at some scale gives what diffusers' own loading of it gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import load, run
from loras import LoadedLoras, Weights, diffusers_keys, kohya_keys, peft_folder, random_lora, write
from parity import LATENTS, PIXELS, pixels_apart, relative
from tiny_checkpoints import Reference, reference, stock_pipeline
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 64,
    "num_inference_steps": 2,
}
SCALE = 0.7
ATTENTION = "to_q to_k to_v to_out add_q_proj add_out"
CLIP = "q_proj k_proj v_proj out_proj fc1 fc2"
EVERYWHERE = "attn ff proj embed conv linear"

Keys = dict[str, Tensor]


@pytest.fixture(scope="module", params=["flux-dev", "sd15", "sdxl"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@contextmanager
def stock_with(folder: Path, file: Path, scale: float) -> Iterator[None]:
    """diffusers' pipeline of the checkpoint, with one LoRA."""
    stock = stock_pipeline(folder)
    stock.load_lora_weights(file.parent, weight_name=file.name, adapter_name="x")
    stock.set_adapters("x", scale)
    try:
        yield
    finally:
        stock.unload_lora_weights()


def check(folder: Path, pipeline: ComposedPipeline, file: Path, **change: Any) -> None:
    """Ours with the LoRA equals theirs with it, and it makes a difference."""
    call = {**CALL, **change}
    plain = reference(folder, **call)
    with stock_with(folder, file, SCALE):
        theirs = reference(folder, **call)
    check_equal(pipeline, file.parent, file.stem, theirs, **change)
    assert (theirs.latents - plain.latents).abs().max() > 0.01


def check_equal(
    pipeline: ComposedPipeline, root: Path, name: str, theirs: Reference, **change: Any
) -> None:
    use = LoadedLoras(pipeline, root).use(name, SCALE)
    try:
        ours = run(pipeline, SamplingParams(**{**CALL, **change}), loras=[use])
    finally:
        pipeline.loras.remove(use.key)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS


def denoiser_of(folder: Path) -> tuple[str, Any]:
    stock = stock_pipeline(folder)
    return ("unet", stock.unet) if hasattr(stock, "unet") else ("transformer", stock.transformer)


def encoders_of(folder: Path) -> dict[str, Any]:
    stock = stock_pipeline(folder)
    encoders = {name: getattr(stock, name, None) for name in ("text_encoder", "text_encoder_2")}
    return {name: e for name, e in encoders.items() if type(e).__name__.startswith("CLIP")}


def test_lora_of_every_module_and_the_encoders_equals_diffusers(
    folder: Path, pipeline: ComposedPipeline, tmp_path: Path
) -> None:
    name, module = denoiser_of(folder)
    keys = diffusers_keys(name, random_lora(module, EVERYWHERE))
    for encoder, module in encoders_of(folder).items():
        keys |= diffusers_keys(encoder, random_lora(module, CLIP, seed=1))
    check(folder, pipeline, write(tmp_path / "a.safetensors", keys))


def test_lora_with_the_config_that_diffusers_writes_into_it_equals_diffusers(
    folder: Path, pipeline: ComposedPipeline, tmp_path: Path
) -> None:
    name, module = denoiser_of(folder)
    weights = random_lora(module, ATTENTION)
    odd = min(weights)
    config = {"r": 4, "lora_alpha": 6, "alpha_pattern": {odd: 3}, "target_modules": [*weights]}
    packed = {f"{name}.{key}": value for key, value in config.items()}
    file = write(
        tmp_path / "a.safetensors",
        diffusers_keys(name, weights),
        {"format": "pt", "lora_adapter_metadata": json.dumps(packed)},
    )
    check(folder, pipeline, file)


def test_lora_as_peft_saves_it_is_scaled_by_its_config(
    folder: Path, pipeline: ComposedPipeline, tmp_path: Path
) -> None:
    name, module = denoiser_of(folder)
    weights = random_lora(module, ATTENTION)
    odd = min(weights)
    peft_folder(tmp_path / "p", weights, lora_alpha=8, alpha_pattern={odd: 2})
    scaled = {n: (a, b * (0.5 if n == odd else 2)) for n, (a, b) in weights.items()}
    file = write(tmp_path / "a.safetensors", diffusers_keys(name, scaled))
    with stock_with(folder, file, SCALE):
        theirs = reference(folder, **CALL)
    check_equal(pipeline, tmp_path, "p", theirs)


def test_kohya_lora_with_alphas_equals_diffusers(
    folder: Path, pipeline: ComposedPipeline, tmp_path: Path
) -> None:
    name, module = denoiser_of(folder)
    if name == "transformer":
        keys = kohya_keys("lora_unet", flux_blocks(module))
        encoder = {"lora_te1": stock_pipeline(folder).text_encoder}
    else:
        keys = kohya_keys("lora_unet", random_lora(module, "attn ff proj_in conv1 conv2 time_emb"))
        found = list(encoders_of(folder).values())
        encoder = {f"lora_te{i + 1}": e for i, e in enumerate(found)}
        if len(found) == 1:
            encoder = {"lora_te": found[0]}
    for prefix, clip in encoder.items():
        keys |= kohya_keys(prefix, in_text_model(random_lora(clip, CLIP, seed=1)))
    check(folder, pipeline, write(tmp_path / "a.safetensors", keys))


def test_comfyui_lora_equals_diffusers(checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoints("flux-dev")
    keys: Keys = {}
    for name, (down, up) in flux_blocks(stock_pipeline(folder).transformer).items():
        keys |= {f"diffusion_model.{name}.lora_down.weight": down}
        keys |= {f"diffusion_model.{name}.lora_up.weight": up}
    check(folder, load(folder), write(tmp_path / "a.safetensors", keys))


def test_xlabs_lora_equals_diffusers(checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoints("flux-dev")
    keys: Keys = {}
    for name, (down, up) in flux_blocks(stock_pipeline(folder).transformer).items():
        block, of_image, layer = name.partition("img_attn.")
        if of_image:
            keys |= {f"{block}processor.{layer}_lora1.down.weight": down}
            keys |= {f"{block}processor.{layer}_lora1.up.weight": up}
    check(folder, load(folder), write(tmp_path / "a.safetensors", keys))


def test_lora_in_diffusers_old_names_equals_diffusers(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoints("sd15")
    keys: Keys = {}
    for name, (down, up) in random_lora(stock_pipeline(folder).unet, "to_q to_out.0").items():
        block, _, layer = name.removesuffix(".0").rpartition(".")
        stem = f"unet.{block}.processor.{layer}_lora"
        keys |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    clip = random_lora(stock_pipeline(folder).text_encoder, "q_proj fc1", seed=1)
    for name, (down, up) in in_text_model(clip).items():
        stem = f"text_encoder.{name}.lora_linear_layer"
        keys |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    check(folder, load(folder), write(tmp_path / "a.safetensors", keys))


def test_kohya_lora_in_the_block_names_of_sdxl_equals_diffusers(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoints("sdxl")
    unet = stock_pipeline(folder).unet
    layers = unet.config.layers_per_block + 1
    weights: Weights = {}
    for name, pair in random_lora(unet, "attentions").items():
        if name.startswith("down_blocks"):
            _, block, _, at, rest = name.split(".", 4)
            weights[f"input_blocks_{int(block) * layers + int(at) + 1}_1_{rest}"] = pair
    check(folder, load(folder), write(tmp_path / "a.safetensors", kohya_keys("lora_unet", weights)))


WAN_NAMES = {
    "attn1": "self_attn",
    "attn2": "cross_attn",
    "to_out.0": "o",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
KREA2_NAMES = {
    "transformer_blocks": "blocks",
    "text_fusion": "txtfusion",
    "txt_in.linear_1": "txtmlp.1",
    "txt_in.linear_2": "txtmlp.3",
    "img_in": "first",
    "to_out.0": "wo",
    "to_gate": "gate",
    "to_": "w",
    ".ff.": ".mlp.",
}
OTHER_FAMILIES: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "wan": (
        "attn ffn",
        WAN_NAMES,
        {"num_frames": 5, "negative_prompt": "", "guidance_scale": 5.0, "max_sequence_length": 32},
    ),
    "qwenimage": ("attn mlp mod", {}, {"negative_prompt": " ", "true_cfg_scale": 2.0}),
    "qwenimage21": (
        "attn mlp txt_in",
        {},
        {"negative_prompt": " ", "true_cfg_scale": 2.0, "height": 32},
    ),
    "krea2": ("attn ff txt_in img_in projector", KREA2_NAMES, {"guidance_scale": 3.0}),
    "zimage": ("attention feed_forward", {}, {"guidance_scale": 3.0}),
}
"""By checkpoint: the layers, their names in other layouts, and what a call needs."""


LAYOUTS = [(name, layout) for name in OTHER_FAMILIES for layout in ("kohya", "comfyui")]
for name in ("krea2", "qwenimage21"):  # which diffusers does not know
    LAYOUTS.remove((name, "kohya"))


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_loras_of_other_families_equal_diffusers(
    name: str, layout: str, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    words, names, change = OTHER_FAMILIES[name]
    folder = checkpoints(name)
    weights: Weights = {}
    for module, pair in random_lora(stock_pipeline(folder).transformer, words).items():
        for ours, theirs in names.items():
            module = module.replace(ours, theirs)
        weights[module] = pair
    if layout == "kohya":
        keys = kohya_keys("lora_unet", weights)
    else:
        keys = diffusers_keys("diffusion_model", weights)
    check(folder, load(folder), write(tmp_path / "a.safetensors", keys), **change)


def test_a_low_noise_lora_is_for_the_second_denoiser(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoints("wan22")
    stock, pipeline = stock_pipeline(folder), load(folder)
    keys = diffusers_keys("transformer", random_lora(stock.transformer, ATTENTION))
    file = write(tmp_path / "style_low_noise.safetensors", keys)
    call = {**CALL, "num_frames": 5, "negative_prompt": "", "guidance_scale": 5.0}
    call |= {"num_inference_steps": 4, "max_sequence_length": 32}
    options = {"weight_name": file.name, "adapter_name": "x", "load_into_transformer_2": True}
    stock.load_lora_weights(tmp_path, **options)
    stock.set_adapters("x", SCALE)
    try:
        theirs = reference(folder, **call)
    finally:
        stock.unload_lora_weights()
    use = LoadedLoras(pipeline, tmp_path).use("style_low_noise", SCALE)
    assert relative(run(pipeline, SamplingParams(**call), loras=[use]), theirs) <= LATENTS
    assert relative(run(pipeline, SamplingParams(**call)), theirs) > 0.01


def in_text_model(weights: Weights) -> Weights:
    """CLIP's layers by the names that they have in files."""
    return {f"text_model.{name.removeprefix('text_model.')}": p for name, p in weights.items()}


def flux_blocks(transformer: Any) -> Weights:
    """A LoRA for FLUX's double blocks and some of its single ones, by the original names."""
    generator = torch.Generator().manual_seed(0)
    dim = transformer.inner_dim
    layers = {"img_attn.qkv": (3 * dim, dim), "img_attn.proj": (dim, dim)}
    layers |= {"txt_attn.qkv": (3 * dim, dim), "img_mlp.0": (4 * dim, dim)}
    layers |= {"txt_mlp.2": (dim, 4 * dim), "img_mod.lin": (6 * dim, dim)}
    shapes = {
        f"double_blocks.{i}.{layer}": shape
        for i in range(transformer.config.num_layers)
        for layer, shape in layers.items()
    }
    for i in range(transformer.config.num_single_layers):
        shapes[f"single_blocks.{i}.linear2"] = (dim, 5 * dim)
        shapes[f"single_blocks.{i}.modulation.lin"] = (3 * dim, dim)
    return {
        name: (
            0.5 * torch.randn(4, into, generator=generator) / into**0.5,
            0.5 * torch.randn(out, 4, generator=generator),
        )
        for name, (out, into) in shapes.items()
    }
