"""Files of IP-Adapters that do not fit are refused with the reason, before a weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from controls import LoadedControls, edges
from engineless import load
from ip_adapters import write_adapter
from safetensors.torch import load_file, save_file
from tiny_checkpoints import stock_pipeline

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


@pytest.fixture(scope="module")
def pipeline(checkpoints: Callable[..., Path]) -> ComposedPipeline:
    return load(checkpoints("sd15"))


@pytest.fixture(scope="module")
def root(checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("controls")
    stock = {name: stock_pipeline(checkpoints(name)) for name in ("sd15", "sdxl", "flux-dev")}
    write_adapter(root / "faces", stock["sd15"].unet, "faceid")
    write_adapter(root / "of SDXL", stock["sdxl"].unet, "plus")
    write_adapter(root / "of FLUX", stock["flux-dev"].transformer, "plain")
    shutil.rmtree(write_adapter(root / "alone", stock["sd15"].unet, "plain") / "image_encoder")
    other = write_adapter(root / "other encoder", stock["sd15"].unet, "plain")
    config = other / "image_encoder" / "config.json"
    config.write_text(config.read_text().replace('"projection_dim": 12', '"projection_dim": 20'))
    (root / "pickled").mkdir()
    (root / "pickled" / "ip-adapter.bin").write_bytes(b"")
    (root / "file.bin").write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("faces", "FaceID is not supported: it needs the embedding of a face by insightface"),
        (
            "of SDXL",
            "is for 11 attentions of width 32, not 10 attentions of width 16, 32; the model",
        ),
        ("of FLUX", "is for 2 attentions"),
        ("alone", "needs its image encoder, in a folder image_encoder/ beside its file"),
        ("other encoder", "image_encoder/config.json: projection_dim=20 must be 12"),
        ("pickled", "ip-adapter.bin could run code, so it is not read: convert it to safetensors"),
        ("file", "file.bin could run code"),
        ("file.bin", "file.bin could run code"),
    ],
)
def test_an_ip_adapter_that_does_not_fit_is_refused(
    pipeline: ComposedPipeline, root: Path, name: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        LoadedControls(pipeline, root).key(name)
    assert f"control='{name}': {reason}" in str(raised.value)


def test_adapters_in_one_folder_share_the_image_encoder_of_any_layout(
    pipeline: ComposedPipeline, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    unet = stock_pipeline(checkpoints("sd15")).unet
    for name in ("plain", "plus"):
        folder = write_adapter(tmp_path / "made", unet, name)
        (folder / "ip-adapter.safetensors").rename(tmp_path / f"{name}.safetensors")
    alone = (folder / "image_encoder").rename(tmp_path / "image_encoder")
    controls = LoadedControls(pipeline, tmp_path)
    assert controls.names == ["plain", "plus"]
    first, second = (encoder_of(pipeline, controls, name) for name in ("plain", "plus"))
    assert first is second
    config = json.loads((alone / "config.json").read_text())
    whole = {"model_type": "clip", "projection_dim": config.pop("projection_dim")}
    (alone / "config.json").write_text(json.dumps({**whole, "vision_config": config}))
    weights = load_file(alone / "model.safetensors")
    save_file({**weights, "text_model.x": torch.zeros(1)}, alone / "model.safetensors")
    third = encoder_of(pipeline, LoadedControls(pipeline, tmp_path), "plain")
    assert third is not first
    pixels = edges(20, 30)
    torch.testing.assert_close(third.seen(pixels, states=False), first.seen(pixels, states=False))


def encoder_of(pipeline: ComposedPipeline, controls: LoadedControls, name: str) -> Any:
    return pipeline.controls._loaded[controls.key(name)]._encoder  # type: ignore[attr-defined]


def test_an_ip_adapter_with_a_missing_tensor_is_refused(
    pipeline: ComposedPipeline, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "cut", stock_pipeline(checkpoints("sd15")).unet, "plus")
    path = folder / "ip-adapter.safetensors"
    tensors = load_file(path)
    del tensors["image_proj.layers.2.1.1.weight"]
    save_file(tensors, path)
    with pytest.raises(InvalidRequest, match=r"missing: .*layers\.2\.1\.1\.weight"):
        LoadedControls(pipeline, tmp_path).key("cut")
