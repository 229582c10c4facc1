"""Files of controls: layouts that are read, and what is refused before a weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import diffusers
import pytest
import torch
from controls import EMBEDDING, edges, networks, save_random
from engineless import load
from safetensors.torch import load_file, save_file
from tiny_checkpoints import stock_pipeline

from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.controls.control import Control, ControlCall, ControlPicture
from multimodal_gen.runtime.pipelines.adapter_readers import control_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(checkpoints: Callable[..., Path]) -> Mapping[str, Path]:
    return {name: checkpoints(name) for name in ("sd15", "sdxl", "flux-dev")}


@pytest.fixture(scope="module")
def pipelines(folders: Mapping[str, Path]) -> Mapping[str, ComposedPipeline]:
    return {name: load(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def root(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Controls of each model: canny, features and union, such as sdxl-union."""
    root = tmp_path_factory.mktemp("controls")
    for model in ("sd15", "sdxl"):
        for name, net in networks(stock_pipeline(folders[model]).unet).items():
            save_random(net, root / f"{model}-{name}")
    return root


def read(pipeline: ComposedPipeline, root: Path, name: str) -> Control:
    return control_reader(pipeline).read(ControlFolder(root).find(name))


def outputs(control: Control) -> list[torch.Tensor]:
    """What a ControlNet adds to one row."""
    mode = control.modes[1] if control.modes else None
    told = control.prepared(ControlPicture(edges(64, 64), 64, 64, ("positive",), mode))["positive"]
    generator = torch.Generator().manual_seed(0)
    config = control.module.config  # type: ignore[attr-defined]
    shapes = {
        "latents": (1, 4, 8, 8),
        "encoder_hidden_states": (1, 5, config.cross_attention_dim),
        "text_embeds": (1, config.cross_attention_dim // 2),
        "time_ids": (1, 6),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    call = ControlCall({**tensors, "timestep": torch.ones(1)}, {}, told, torch.ones(1), None, 1)
    with control.applied(call) as added:
        return [*added["down_block_additional_residuals"], added["mid_block_additional_residual"]]  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["sd15-canny", "sdxl-canny", "sdxl-union", "sdxl-small"])
def test_a_file_without_a_config_is_read_like_one_with_it(
    pipelines: Mapping[str, ComposedPipeline], root: Path, name: str, tmp_path: Path
) -> None:
    pipeline = pipelines[name.partition("-")[0]]
    save_file(load_file(root / name / WEIGHTS), tmp_path / "alone.safetensors")
    alone, whole = read(pipeline, tmp_path, "alone"), read(pipeline, root, name)
    for one, other in zip(outputs(alone), outputs(whole), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_union_is_told_by_its_tensors_whatever_its_config_says(
    pipelines: Mapping[str, ComposedPipeline], root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "sdxl-union", tmp_path / "union")
    config = json.loads((tmp_path / "union" / "config.json").read_text())
    silent = {key: config[key] for key in config if not key.startswith(("num_t", "num_p", "num_c"))}
    silent |= {"_class_name": "ControlNetModel", "num_trans_head": config["num_trans_head"]}
    (tmp_path / "union" / "config.json").write_text(json.dumps(silent))
    one = outputs(read(pipelines["sdxl"], tmp_path, "union"))
    for mine, other in zip(one, outputs(read(pipelines["sdxl"], root, "sdxl-union")), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_file_in_the_original_layout_is_read(
    pipelines: Mapping[str, ComposedPipeline], root: Path, tmp_path: Path, prefix: str
) -> None:
    stored = load_file(root / "sd15-canny" / WEIGHTS)
    original = {prefix + original_name(name): tensor for name, tensor in stored.items()}
    assert len(original) == len(stored)
    save_file(original, tmp_path / "original.safetensors")
    pipeline = pipelines["sd15"]
    alone, whole = read(pipeline, tmp_path, "original"), read(pipeline, root, "sd15-canny")
    for one, other in zip(outputs(alone), outputs(whole), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def original_name(name: str) -> str:
    """The authors' name of a tensor of the tiny ControlNet, whose blocks have one layer."""
    kind, *rest = name.split(".")
    tail = ".".join(rest)
    if kind == "controlnet_down_blocks":
        return f"zero_convs.{rest[0]}.0.{rest[1]}"
    if kind == "controlnet_mid_block":
        return f"middle_block_out.0.{tail}"
    if kind == "controlnet_cond_embedding":
        at = {"conv_in": 0, "conv_out": 14}.get(rest[0])
        return f"input_hint_block.{2 * int(rest[1]) + 2 if at is None else at}.{rest[-1]}"
    if kind == "conv_in":
        return f"input_blocks.0.0.{tail}"
    if kind == "time_embedding":
        return f"time_embed.{2 * int(rest[0][-1]) - 2}.{rest[1]}"
    if kind == "mid_block":
        at = 1 if rest[0] == "attentions" else 2 * int(rest[1])
        return f"middle_block.{at}.{inner_name(rest)}"
    block, part = int(rest[0]), rest[1]
    if part == "downsamplers":
        return f"input_blocks.{2 * block + 2}.0.op.{rest[-1]}"
    return f"input_blocks.{2 * block + 1}.{int(part == 'attentions')}.{inner_name(rest[1:])}"


def inner_name(parts: list[str]) -> str:
    kind, _, *rest = parts
    if kind == "attentions":
        return ".".join(rest)
    known = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    return f"{known[rest[0]]}.{rest[1]}"


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (
            "sdxl",
            "sd15-canny",
            "is a ControlNet for a UNet whose texts have width 32; the model is",
        ),
        ("sd15", "sdxl-canny", "is a ControlNet for a UNet whose texts have width 64"),
        ("sd15", "sdxl-union", "is a ControlNet for a UNet whose texts have width 64"),
        ("sd15", "sdxl-features", "is a T2I-Adapter for Stable Diffusion XL"),
        ("sd15", "sdxl-small", "is a ControlNet for a UNet with other blocks"),
        ("sdxl", "sd15-features", "is a T2I-Adapter for Stable Diffusion 1 and 2"),
        ("flux-dev", "sd15-canny", "is a ControlNet for a UNet"),
    ],
)
def test_a_control_for_another_model_is_refused(
    pipelines: Mapping[str, ComposedPipeline], root: Path, model: str, name: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(pipelines[model], root, name)


def test_files_that_are_no_controls_are_refused(
    pipelines: Mapping[str, ComposedPipeline], root: Path, tmp_path: Path
) -> None:
    save_file({"lora.down": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    (tmp_path / "odd").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "odd" / WEIGHTS)
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"_class_name": "OtherModel"}))
    for name, found in (("lora", "its tensors"), ("odd", "OtherModel")):
        with pytest.raises(InvalidRequest, match=f"is of no known kind .{found}"):
            read(pipelines["sd15"], tmp_path, name)


def test_weights_that_are_missing_are_named(
    pipelines: Mapping[str, ComposedPipeline], root: Path, tmp_path: Path
) -> None:
    stored = load_file(root / "sd15-canny" / WEIGHTS)
    del stored["mid_block.resnets.0.conv1.weight"]
    save_file(stored, tmp_path / "cut.safetensors")
    with pytest.raises(InvalidRequest, match=r"mid_block\.resnets\.0\.conv1\.weight"):
        read(pipelines["sd15"], tmp_path, "cut")


def test_a_size_that_an_adapter_does_not_take_is_refused(
    pipelines: Mapping[str, ComposedPipeline], root: Path
) -> None:
    control = read(pipelines["sdxl"], root, "sdxl-features")
    assert control.misuse(None, 64, 96) is None
    assert control.misuse(None, 64, 88) == "needs a width and height that are multiples of 16"


def test_a_network_for_depth_maps_of_one_channel_is_refused(
    pipelines: Mapping[str, ComposedPipeline], folders: Mapping[str, Path], tmp_path: Path
) -> None:
    net = diffusers.ControlNetModel.from_unet(
        stock_pipeline(folders["sd15"]).unet,
        conditioning_channels=1,
        conditioning_embedding_out_channels=EMBEDDING,
        load_weights_from_unet=False,
    )
    save_random(net, tmp_path / "narrow")
    with pytest.raises(InvalidRequest, match="for conditions of 1 channels, not for pictures"):
        read(pipelines["sd15"], tmp_path, "narrow")
