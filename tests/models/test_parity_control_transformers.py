"""ControlNets of FLUX, Stable Diffusion 3, Qwen-Image and Z-Image give what diffusers' give."""

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
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from engineless import Pictures, run
from parity import LATENTS, PIXELS, pixels_apart, relative
from tiny_checkpoints import Reference, stock_pipeline

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

COMMON: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "width": 80,
    "height": 48,
    "num_inference_steps": 4,
}
CALLS: dict[str, dict[str, Any]] = {
    "flux-dev": {"guidance_scale": 3.0},
    "sd3": {"guidance_scale": 5.0, "negative_prompt": "blurry"},
    "qwenimage": {"true_cfg_scale": 4.0, "negative_prompt": "blurry " * 9},
    "zimage": {"guidance_scale": 2.0, "negative_prompt": "blurry " * 40},
}
CLASSES = {
    "flux-dev": "FluxControlNet",
    "sd3": "StableDiffusion3ControlNet",
    "qwenimage": "QwenImageControlNet",
    "zimage": "ZImageControlNet",
}
SIZES = {"a": (48, 80), "b": (70, 45), "c": (64, 64)}
"""Of the networks' pictures."""


def _nets(name: str, transformer: Any) -> dict[str, Any]:
    config = {key: value for key, value in transformer.config.items() if not key.startswith("_")}
    if name == "flux-dev":
        make = diffusers.FluxControlNetModel
        own = {key: value for key, value in config.items() if key != "out_channels"}
        hint = {"conditioning_embedding_channels": config["in_channels"] // 4, "patch_size": 2}
        return {
            "a": make(**{**own, "num_layers": 1, "num_single_layers": 2, "guidance_embeds": False}),
            "b": make(**{**own, "num_layers": 1, "num_single_layers": 1, "num_mode": 9}),
            "c": make(**{**own, **hint, "num_layers": 1, "num_single_layers": 0}),
        }
    if name == "sd3":
        make = diffusers.SD3ControlNetModel
        alone = {
            "joint_attention_dim": None,
            "use_pos_embed": False,
            "pos_embed_type": None,
            "force_zeros_for_pooled_projection": False,
            "dual_attention_layers": (),
        }
        return {
            "a": make(**{**config, "num_layers": 1}),
            "b": make(**{**config, "num_layers": 2, "pos_embed_max_size": 24}),
            "c": make(**{**config, **alone, "num_layers": 2}),
        }
    if name == "qwenimage":
        make = diffusers.QwenImageControlNetModel
        known = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")
        own = {key: value for key, value in config.items() if key not in known}
        return {key: make(**{**own, "num_layers": n}) for key, n in (("a", 1), ("b", 1))}
    shared = ("dim", "n_refiner_layers", "n_heads", "n_kv_heads", "norm_eps", "qk_norm")
    own = {key: config[key] for key in shared}
    channels, refiners = config["in_channels"], [*range(config["n_refiner_layers"])]

    def z_image(steers: str | None, layers: list[int], more: int = 0) -> Any:
        return diffusers.ZImageControlNetModel(
            control_layers_places=layers,
            control_refiner_layers_places=refiners,
            control_in_dim=channels + more,
            add_control_noise_refiner=steers,
            **own,
        )

    return {
        "a": z_image(None, [0]),
        "b": z_image("control_layers", [0, 1], channels + 1),
        "c": z_image("control_noise_refiner", [0, 1], channels + 1),
    }


@pytest.fixture(scope="module", params=CLASSES)
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def nets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Networks of diffusers, saved in `.folder`."""
    root = tmp_path_factory.mktemp("controls")
    made = _nets(folder.name, stock_pipeline(folder).transformer)
    for number, (name, net) in enumerate(made.items()):
        save_random(net, root / name, number)
    return {**made, "folder": root}


@pytest.fixture(scope="module")
def loaded(pipeline: ComposedPipeline, nets: Mapping[str, Any]) -> LoadedControls:
    return LoadedControls(pipeline, nets["folder"])


def params_of(folder: Path, *controls: str, **change: Any) -> SamplingParams:
    """Controls in the words of the command line, whose pictures are named by the networks."""
    call = {**COMMON, **CALLS[folder.name], **change}
    params = SamplingParams(**call, control=controls)
    wire = tuple(
        type(each)(each.name, None, each.scale, each.start, each.stop, each.mode)
        for each in params.control
    )
    return params.updated(control=wire)


def pictures_of(params: SamplingParams) -> Pictures:
    shown = enumerate(params.control, 1)
    return {f"control_{number}": edges(*SIZES[choice.name]) for number, choice in shown}


def stock(
    folder: Path, nets: Mapping[str, Any], params: SamplingParams, task: str = "", **call: Any
) -> Reference:
    """The reference of diffusers for the same request."""
    choices = params.control
    own = [nets[choice.name] for choice in choices]
    components = dict(stock_pipeline(folder).components)
    for net in own if folder.name == "zimage" else []:
        type(net).from_transformer(net, components["transformer"])
    kind = getattr(diffusers, f"{CLASSES[folder.name]}{task}Pipeline")
    net: Any = own if len(own) > 1 else own[0]
    if folder.name == "qwenimage" and len(own) > 1:
        net = diffusers.QwenImageMultiControlNetModel(own[:1])
    known = set(kind.__init__.__annotations__)
    parts = {name: each for name, each in components.items() if name in known}
    made = kind(**parts, controlnet=net)
    made.set_progress_bar_config(disable=True)
    each: dict[str, Any] = {
        "control_image": [PIL.Image.fromarray(edges(*SIZES[choice.name])) for choice in choices],
        "controlnet_conditioning_scale": [float(choice.scale) for choice in choices],
    }
    if folder.name != "zimage":
        each["control_guidance_start"] = [choice.start for choice in choices]
        each["control_guidance_end"] = [choice.stop for choice in choices]
    if folder.name == "flux-dev":
        modes = [None if choice.mode is None else int(choice.mode) for choice in choices]
        each["control_mode"] = modes
    if len(own) == 1:
        each = {name: values[0] for name, values in each.items()}
    sizes = {} if task else {"width": params.width, "height": params.height}
    given = {**COMMON, **CALLS[folder.name], **each, **sizes, **call}
    return _reference(made, {name: value for name, value in given.items() if value is not None})


def _reference(pipeline: Any, call: Mapping[str, Any]) -> Any:
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


@pytest.fixture(autouse=True)
def mode_in_place_of_global_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a generator the library draws from a state that no request sets."""
    drawn: Any = DiagonalGaussianDistribution.sample

    def sample(self: Any, generator: torch.Generator | None = None) -> Any:
        return self.mode() if generator is None else drawn(self, generator)

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", sample)


CASES = [
    ("flux-dev", ["a=x:0.8"], {}),
    ("flux-dev", ["b/2=x@0.25-0.8"], {"width": 64, "height": 96}),
    ("flux-dev", ["c=x"], {"negative_prompt": "blurry", "true_cfg_scale": 3.0}),
    ("flux-dev", ["b/3=x:0.6", "b/8=x:0.9@0-0.5"], {}),
    ("sd3", ["a=x:0.8"], {}),
    ("sd3", ["b=x@0.25-0.8"], {"width": 64, "height": 96}),
    ("sd3", ["c=x"], {"guidance_scale": 1.0, "negative_prompt": None}),
    ("sd3", ["a=x:0.6", "b=x:0.9@0-0.5"], {}),
    ("qwenimage", ["a=x:0.8"], {}),
    ("qwenimage", ["b=x@0.25-0.8"], {"width": 64, "height": 96, "negative_prompt": None}),
    ("qwenimage", ["a=x:0.6", "a=x:0.9@0-0.5"], {}),
    ("zimage", ["a=x:0.8"], {}),
    ("zimage", ["b=x:0.7"], {"width": 64, "height": 96, "guidance_scale": 0.0}),
    ("zimage", ["c=x:1.2"], {}),
]


@pytest.mark.parametrize(
    ("folder", "controls", "change"), CASES, ids=str, indirect=["folder"], scope="module"
)
def test_a_controlnet_equals_diffusers(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    controls: list[str],
    change: dict[str, Any],
) -> None:
    params = params_of(folder, *controls, **change)
    ours = run(pipeline, params, pictures_of(params), controls=loaded.uses(params.control))
    theirs = stock(folder, nets, params, **change)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    plain = run(pipeline, params.updated(control=()))
    assert not np.allclose(ours.pixels, plain.pixels, atol=8)
