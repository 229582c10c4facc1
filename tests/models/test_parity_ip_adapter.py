"""IP-Adapters give what diffusers' pipelines give, alone and in batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import PIL.Image
import pytest
import torch
from controls import LoadedControls, edges, save_random
from engineless import Output, finish, left, run, start
from ip_adapters import write_adapter
from loras import LoadedLoras, diffusers_keys, random_lora, write
from parity import LATENTS, PIXELS, check_same_picture, pixels_apart, relative
from tiny_checkpoints import reference, stock_pipeline

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

UNETS = {"sd15": ("plain", "full", "plus"), "sdxl": ("plain", "plus")}
KINDS = {**UNETS, "flux-dev": ("plain", "plain 2")}
CALL: dict[str, Any] = {
    "prompt": "a photo of a blue rocket",
    "width": 96,
    "height": 64,
    "num_inference_steps": 3,
}
SIZES = {"plain": (40, 64), "plus": (70, 45), "full": (64, 64), "plain 2": (33, 90)}
"""Of their pictures."""


@pytest.fixture(scope="module", params=[*KINDS])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters for the checkpoint."""
    root, stock = tmp_path_factory.mktemp("controls"), stock_pipeline(folder)
    denoiser = stock.unet if folder.name in UNETS else stock.transformer
    for seed, kind in enumerate(KINDS[folder.name]):
        write_adapter(root / kind, denoiser, kind.split()[0], seed=seed)
    return root


@pytest.fixture(scope="module")
def loaded(pipeline: ComposedPipeline, root: Path) -> LoadedControls:
    return LoadedControls(pipeline, root)


def call_of(folder: Path, *, guided: bool) -> dict[str, Any]:
    if folder.name in UNETS:
        scale = {"guidance_scale": 5.0 if guided else 1.0}
        return {**CALL, **scale, "negative_prompt": "blurry"}
    own = {"true_cfg_scale": 3.0, "negative_prompt": "blurry"} if guided else {}
    return {**CALL, **own, "guidance_scale": 3.0, "max_sequence_length": 32}


def choices(*names: str, scale: float = 0.7) -> tuple[ControlChoice, ...]:
    return tuple(ControlChoice(name, scale=scale + at / 5) for at, name in enumerate(names))


def pictures_of(chosen: Sequence[ControlChoice]) -> dict[str, Any]:
    return {f"control_{n}": edges(*SIZES[each.name]) for n, each in enumerate(chosen, 1)}


def ours_of(
    pipeline: ComposedPipeline,
    loaded: LoadedControls,
    chosen: Sequence[ControlChoice],
    call: Mapping[str, Any],
) -> Output:
    params = SamplingParams(**call, control=tuple(chosen))
    return run(pipeline, params, pictures_of(chosen), controls=loaded.uses(chosen))


def with_adapters(folder: Path, root: Path, chosen: Sequence[ControlChoice]) -> Any:
    """Diffusers' pipeline with these adapters, each at its scale."""
    stock = copy.copy(stock_pipeline(folder))
    denoiser = "unet" if folder.name in UNETS else "transformer"
    stock.register_modules(**{denoiser: copy.deepcopy(getattr(stock, denoiser))})
    encoder = root / chosen[0].name / "image_encoder"
    own = (
        {"image_encoder_folder": str(encoder)}
        if folder.name in UNETS
        else {
            "image_encoder_pretrained_model_name_or_path": str(encoder),
            "image_encoder_dtype": torch.float32,
        }
    )
    stock.load_ip_adapter(
        [str(root / each.name) for each in chosen],
        subfolder=[""] * len(chosen),
        weight_name=["ip-adapter.safetensors"] * len(chosen),
        local_files_only=True,
        **own,
    )
    scales: list[Any] = [float(each.scale) for each in chosen]
    if folder.name not in UNETS:  # a list is of blocks
        scales = [[scale] * stock.transformer.config.num_layers for scale in scales]
    stock.set_ip_adapter_scale(scales)
    return stock


def check_adapters(
    pipeline: ComposedPipeline,
    folder: Path,
    root: Path,
    loaded: LoadedControls,
    chosen: Sequence[ControlChoice],
    call: Mapping[str, Any],
) -> None:
    shown = [PIL.Image.fromarray(edges(*SIZES[each.name])) for each in chosen]
    stock = with_adapters(folder, root, chosen)
    theirs = reference(folder, pipeline=stock, ip_adapter_image=shown, **call)
    ours = ours_of(pipeline, loaded, chosen, call)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    without = run(pipeline, SamplingParams(**call))
    assert relative(without, theirs) > 100 * LATENTS


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_each_kind_of_ip_adapter_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, root: Path, loaded: LoadedControls, guided: bool
) -> None:
    for kind in KINDS[folder.name] if guided else KINDS[folder.name][:1]:
        call = call_of(folder, guided=guided)
        check_adapters(pipeline, folder, root, loaded, choices(kind), call)


def test_two_ip_adapters_of_one_request_equal_diffusers(
    pipeline: ComposedPipeline, folder: Path, root: Path, loaded: LoadedControls
) -> None:
    first, *_, last = KINDS[folder.name]
    call = call_of(folder, guided=True)
    check_adapters(pipeline, folder, root, loaded, choices(last, first), call)


def test_rows_with_different_ip_adapters_and_none_share_a_batch(
    pipeline: ComposedPipeline, folder: Path, root: Path, loaded: LoadedControls
) -> None:
    first, *_, last = KINDS[folder.name]
    call = call_of(folder, guided=True)
    given = [choices(first), (), choices(last, first), choices(first, scale=1.1)]

    def mixed(given: Sequence[Sequence[ControlChoice]]) -> list[Output]:
        states = [
            start(
                pipeline,
                SamplingParams(**call, control=tuple(chosen), seed=seed),
                pictures_of(chosen),
                controls=loaded.uses(chosen),
            )
            for seed, chosen in enumerate(given)
        ]
        assert len({pipeline.batch_key(state, 0) for state in states}) == 1
        pipeline.forward(Phase.DENOISE, states, left(states[0]))
        return [finish(pipeline, state) for state in states]

    together = mixed(given)
    for seed, (ours, chosen) in enumerate(zip(together, given, strict=True)):
        check_same_picture(ours, ours_of(pipeline, loaded, chosen, {**call, "seed": seed}))
    assert torch.equal(together[1].latents, mixed([()] * len(given))[1].latents)


def controlnet_of(folder: Path) -> Any:
    stock = stock_pipeline(folder)
    if folder.name in UNETS:
        return diffusers.ControlNetModel.from_unet(
            stock.unet, conditioning_embedding_out_channels=(8, 8, 8, 8)
        )
    config = {**stock.transformer.config, "num_layers": 1, "num_single_layers": 2}
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    del config["out_channels"]
    return diffusers.FluxControlNetModel(**config)


def test_keys_and_values_of_a_picture_are_made_once_for_all_evaluations(
    pipeline: ComposedPipeline, folder: Path, loaded: LoadedControls
) -> None:
    chosen = choices("plain")
    layers = loaded.control("plain")._keys_values
    made: list[object] = []
    hooks = [each.register_forward_hook(lambda layer, *_: made.append(layer)) for each in layers]
    ours_of(pipeline, loaded, chosen, call_of(folder, guided=False))
    for hook in hooks:
        hook.remove()
    assert made == [*layers]


CONTROLLED = {"sd15": "StableDiffusion", "sdxl": "StableDiffusionXL", "flux-dev": "Flux"}


def test_an_ip_adapter_with_a_controlnet_and_a_lora_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, root: Path, loaded: LoadedControls
) -> None:
    net, is_unet = controlnet_of(folder), folder.name in UNETS
    save_random(net, root / "net")
    part = "unet" if is_unet else "transformer"
    weights = random_lora(getattr(stock_pipeline(folder), part), "attn")
    lora = write(root / "loras" / "all.safetensors", diffusers_keys(part, weights))
    chosen, edge = choices(KINDS[folder.name][-1]), edges(64, 96)
    shown = edges(*SIZES[chosen[0].name])
    kind = getattr(diffusers, f"{CONTROLLED[folder.name]}ControlNetPipeline")
    components = with_adapters(folder, root, chosen).components
    both = kind(**components, controlnet=net)
    both.set_progress_bar_config(disable=True)
    both.load_lora_weights(lora)
    call = call_of(folder, guided=is_unet)
    pictures = {
        "ip_adapter_image": PIL.Image.fromarray(shown),
        "image" if is_unet else "control_image": PIL.Image.fromarray(edge),
    }
    theirs = reference(folder, pipeline=both, **pictures, **call)
    every = (ControlChoice("net"), *chosen)
    ours = run(
        pipeline,
        SamplingParams(**call, control=every),
        {"control_1": edge, "control_2": shown},
        controls=loaded.uses(every),
        loras=[LoadedLoras(pipeline, root / "loras").use("all")],
    )
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    assert relative(ours_of(pipeline, loaded, chosen, call), theirs) > 100 * LATENTS
