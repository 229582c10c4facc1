"""Controls in an engine of two ranks, which share the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controls import LoadedControls, edges, networks, save_random
from engineless import load, run
from engines import start_engine, submit_to
from tiny_checkpoints import stock_pipeline

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.launch.engine_process import EngineProcess

CALL: dict[str, Any] = {
    "prompt": "a pizza",
    "negative_prompt": "blurry",
    "seed": 1,
    "height": 64,
    "width": 64,
    "num_inference_steps": 3,
}
PICTURE = {"control_1": edges(64, 64)}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("sd15")


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Controls of the model, and one that is for another."""
    root = tmp_path_factory.mktemp("controls")
    unet = stock_pipeline(folder).unet
    for name, net in networks(unet).items():
        save_random(net, root / name)
    unlike = type(unet).from_config({**unet.config, "cross_attention_dim": 48})
    save_random(networks(unlike)["canny"], root / "odd")
    return root


@pytest.fixture(scope="module")
def ranks(folder: Path, root: Path) -> Iterator[EngineProcess]:
    options = {"num_gpus": 2, "enable_cfg_parallel": True, "max_loaded_loras": 2}
    with start_engine(model_path=str(folder), control_dir=str(root), **options) as engine:
        yield engine


def test_controls_do_on_two_ranks_what_they_do_on_one(
    ranks: EngineProcess, folder: Path, root: Path
) -> None:
    wanted: list[dict[str, Any]] = [
        {"control": [{"name": "canny", "scale": 0.8}]},
        {"seed": 2},
        {"control": [{"name": "depth", "stop": 0.7}], "guidance_scale": 1.0},
        {"control": [{"name": "features"}], "seed": 3},  # finds room when others are done
    ]
    pictures: list[dict[str, Any]] = [PICTURE if "control" in each else {} for each in wanted]
    together = [
        submit_to(ranks, pictures=shown, **{**CALL, **params})
        for shown, params in zip(pictures, wanted, strict=True)
    ]
    pipeline = load(folder)
    loaded = LoadedControls(pipeline, root)
    for handle, params, shown in zip(together, wanted, pictures, strict=True):
        alone = SamplingParams(**{**CALL, **params})
        expected = run(pipeline, alone, shown, controls=loaded.uses(alone.control)).pixels
        made = handle.result().pixels.astype(int)
        assert np.abs(made - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "control='nothing': is not known; available: canny, depth, features, grey"),
        ("../canny", "is not known"),
        ("odd", "is a ControlNet for a UNet whose texts have width 48; the model is Stable"),
    ],
)
def test_a_control_that_does_not_fit_ends_the_request_alone(
    ranks: EngineProcess, name: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        submit_to(ranks, pictures=PICTURE, **CALL, control=[{"name": name}]).result()


def test_more_controls_than_are_kept_are_refused(ranks: EngineProcess) -> None:
    names = ("canny", "depth", "features")
    pictures = {f"control_{number}": edges(64, 64) for number in (1, 2, 3)}
    with pytest.raises(InvalidRequest, match="must be at most 2"):
        submit_to(ranks, pictures=pictures, **CALL, control=[{"name": name} for name in names])
