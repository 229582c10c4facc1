"""ControlNets of FLUX, Stable Diffusion 3, Qwen-Image and Z-Image give what diffusers' give."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from controls import LoadedControls, edges, save_random
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from engineless import Pictures, finish, left, run, start
from loras import LoadedLoras, diffusers_keys, random_lora, write
from parity import LATENTS, PIXELS, check_same_picture, pixels_apart, relative
from tiny_checkpoints import Reference, stock_pipeline
from transformer_controls import SIZES, networks_for

from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.controls.reader import all_kinds, describe
from multimodal_gen.runtime.controls.transformer_kind import TransformerKind
from multimodal_gen.runtime.pipelines.adapter_readers import control_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

COMMON: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "width": 80,
    "height": 48,
    "num_inference_steps": 4,
}
CALLS: dict[str, dict[str, Any]] = {
    "flux-dev": {"guidance_scale": 3.0, "max_sequence_length": 32},
    "sd3": {"max_sequence_length": 32, "guidance_scale": 5.0, "negative_prompt": "blurry"},
    "qwenimage": {"true_cfg_scale": 4.0, "negative_prompt": "blurry " * 9},
    "zimage": {"guidance_scale": 2.0, "negative_prompt": "blurry " * 40},
}
CLASSES = {
    "flux-dev": "FluxControlNet",
    "sd3": "StableDiffusion3ControlNet",
    "qwenimage": "QwenImageControlNet",
    "zimage": "ZImageControlNet",
}
WITHOUT_USE = ("out_channels", "patch_size", "pos_embed_type", "pos_embed_max_size")
"""Fields that some networks do not use, as they have no end, places or patches."""


@pytest.fixture(scope="module", params=CLASSES)
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def nets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Networks of diffusers, saved in `.folder`."""
    root = tmp_path_factory.mktemp("controls")
    made = networks_for(folder.name, stock_pipeline(folder).transformer)
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


@pytest.mark.parametrize("folder", ["flux-dev"], indirect=True, scope="module")
@pytest.mark.parametrize("task", ["Img2Img", "Inpaint"])
def test_pictures_can_be_changed_under_control(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    task: str,
) -> None:
    params = params_of(folder, "a=x:0.8@0-0.7", strength=0.7, num_inference_steps=6)
    given: Pictures = {**pictures_of(params), "image": edges(48, 80, seed=5)}
    call: dict[str, Any] = {"image": PIL.Image.fromarray(given["image"]), "strength": 0.7}
    if task == "Inpaint":
        given["mask"] = np.tile(np.linspace(-200, 455, 80).clip(0, 255).astype(np.uint8), (48, 1))
        call["mask_image"] = PIL.Image.fromarray(given["mask"])
    ours = run(pipeline, params, given, controls=loaded.uses(params.control))
    theirs = stock(folder, nets, params, task, num_inference_steps=6, **call)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS


def test_rows_of_different_controls_and_of_none_share_a_batch(
    pipeline: ComposedPipeline, folder: Path, nets: Mapping[str, Any], loaded: LoadedControls
) -> None:
    union = "b/2=x:0.9" if folder.name == "flux-dev" else "b=x:0.9"
    wanted = [
        params_of(folder, "a=x"),
        params_of(folder, seed=1),
        params_of(folder, union, "a=x:0.5@0.3-1", seed=2, num_inference_steps=3),
        params_of(folder, "c=x" if "c" in nets else "b=x", seed=3, prompt="a dog " * 9),
    ]
    states = [
        start(pipeline, each, pictures_of(each), controls=loaded.uses(each.control))
        for each in wanted
    ]
    assert len({pipeline.batch_key(state, 0) for state in states}) == 1
    while any(left(state) for state in states):
        pipeline.forward(Phase.DENOISE, [state for state in states if left(state)], 1)
    for state, params in zip(states, wanted, strict=True):
        alone = run(pipeline, params, pictures_of(params), controls=loaded.uses(params.control))
        check_same_picture(finish(pipeline, state), alone)


def test_a_row_without_control_is_what_it_is_beside_a_row_without_control(
    pipeline: ComposedPipeline, folder: Path, loaded: LoadedControls
) -> None:
    def beside(other: SamplingParams) -> torch.Tensor:
        controls = loaded.uses(other.control)
        states = [
            start(pipeline, params_of(folder)),
            start(pipeline, other, pictures_of(other), controls=controls),
        ]
        pipeline.forward(Phase.DENOISE, states, 1)
        return states[0].running()[1]

    assert torch.equal(beside(params_of(folder, "a=x", seed=7)), beside(params_of(folder, seed=7)))


def test_a_file_without_its_config_is_read_by_its_tensors(
    pipeline: ComposedPipeline, folder: Path, nets: Mapping[str, Any], tmp_path: Path
) -> None:
    names = [name for name in SIZES if name in nets]
    for name in names:
        weights = nets["folder"] / name / "diffusion_pytorch_model.safetensors"
        (tmp_path / f"{name}.safetensors").hardlink_to(weights)
    reader = control_reader(pipeline)
    for name in names:
        described = describe(ControlFolder(tmp_path).find(name))
        kind = next(each for each in all_kinds() if each.reads(described))
        assert isinstance(kind, TransformerKind)
        whole = describe(ControlFolder(nets["folder"]).find(name))
        assert reader.read(described.file)
        found, wanted = (asdict(kind.config(each, reader.target)) for each in (described, whole))
        assert found.items() - wanted.items() <= {(name, found.get(name)) for name in WITHOUT_USE}


@pytest.mark.parametrize("folder", ["zimage"], indirect=True, scope="module")
def test_a_lora_applies_to_what_a_controlnet_shares_with_the_model(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    loaded: LoadedControls,
    tmp_path: Path,
) -> None:
    transformer = stock_pipeline(folder).transformer
    weights = random_lora(transformer, "noise_refiner all_x_embedder layers")
    file = write(tmp_path / "all.safetensors", diffusers_keys("transformer", weights))
    params = params_of(folder, "c=x:0.8")
    ours = run(
        pipeline,
        params,
        pictures_of(params),
        controls=loaded.uses(params.control),
        loras=[LoadedLoras(pipeline, tmp_path).use("all")],
    )
    transformer.load_lora_adapter(file, prefix="transformer")
    try:
        theirs = stock(folder, nets, params)
    finally:
        transformer.unload_lora()
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS


@pytest.mark.parametrize("folder", ["sd3"], indirect=True, scope="module")
def test_a_network_with_fewer_places_than_the_output_is_refused(
    pipeline: ComposedPipeline, folder: Path, nets: Mapping[str, Any], tmp_path: Path
) -> None:
    net = type(nets["a"]).from_config({**nets["a"].config, "pos_embed_max_size": 4})
    save_random(net, tmp_path / "a")
    params = params_of(folder, "a=x")
    controls = LoadedControls(pipeline, tmp_path).uses(params.control)
    with pytest.raises(InvalidRequest, match="control='80x48': sides must be at most 64 for"):
        start(pipeline, params, pictures_of(params), controls=controls)


@pytest.mark.parametrize(
    ("folder", "control", "message"),
    [
        ("flux-dev", "b=x", "mode must be canny or tile or depth or blur or pose or gray or lq or"),
        ("flux-dev", "a/canny=x", "mode must be left out for this control"),
        ("flux-dev", "b/sketch=x", "mode must be canny or tile"),
    ],
    indirect=["folder"],
    scope="module",
)
def test_a_mode_that_a_network_lacks_is_refused(
    pipeline: ComposedPipeline, folder: Path, loaded: LoadedControls, control: str, message: str
) -> None:
    params = params_of(folder, control)
    with pytest.raises(InvalidRequest, match=message):
        start(pipeline, params, pictures_of(params), controls=loaded.uses(params.control))


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("flux-dev", {"joint_attention_dim": 7}, "is a ControlNet for a FLUX.1 with joint_att.*=7"),
        ("flux-dev", {"num_mode": 0}, "config.json: num_mode=0 must be an integer of at least 1"),
        ("flux-dev", {"_class_name": "SD3ControlNetModel"}, "is a ControlNet for Stable Diff"),
        ("sd3", {"extra_conditioning_channels": 1}, "ControlNets for inpainting are not supp"),
        ("qwenimage", {"extra_condition_channels": 4}, "ControlNets for inpainting are not supp"),
        ("zimage", {"control_layers_places": [0, 9]}, "a Z-Image with more than 9 layers, not"),
        ("zimage", {"add_control_noise_refiner": "x"}, "must be null, 'control_layers' or"),
    ],
    indirect=["folder"],
    scope="module",
)
def test_a_network_that_does_not_fit_is_refused_before_its_weights_are_read(
    pipeline: ComposedPipeline,
    folder: Path,
    nets: Mapping[str, Any],
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    shutil.copytree(nets["folder"] / "a", tmp_path / "odd")
    config = tmp_path / "odd" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(InvalidRequest, match=message):
        control_reader(pipeline).read(ControlFolder(tmp_path).find("odd"))
