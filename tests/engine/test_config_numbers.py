"""Numbers in configs that would give noise, black pictures or errors are refused at the start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from engineless import load

from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.errors import InvalidCheckpoint

SCHEDULER, VAE = "scheduler/scheduler_config.json", "vae/config.json"
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def folder(checkpoints: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints("sd15"), tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("file", "field", "value", "allowed"),
    [
        (VAE, "scaling_factor", NAN, "finite"),
        (VAE, "scaling_factor", -INFINITY, "finite"),
        (VAE, "scaling_factor", 0, "at least 1e-06 and at most 1000000.0"),
        (VAE, "scaling_factor", 1e300, "at most"),
        (VAE, "scaling_factor", "big", "at least"),
        (VAE, "shift_factor", INFINITY, "finite"),
        (VAE, "latents_std", [1.0, 0.0, 1.0, 1.0], "more than 0"),
        (VAE, "latents_mean", [0.0, NAN, 0.0, 0.0], "finite"),
        (VAE, "norm_eps", NAN, "finite"),
        (VAE, "extra", [0, {"deep": [NAN]}], "finite"),
        (SCHEDULER, "beta_start", NAN, "finite"),
        (SCHEDULER, "beta_start", 0, "more than 0 and at most 1"),
        (SCHEDULER, "beta_end", 1.5, "more than 0 and at most 1"),
        (SCHEDULER, "trained_betas", [0.1, -0.1], "at least 0 and at most 1"),
        (SCHEDULER, "num_train_timesteps", 0, "at least 1 and at most 100000"),
        (SCHEDULER, "num_train_timesteps", True, "at least 1"),
        (SCHEDULER, "steps_offset", -1, "at least 0"),
        (SCHEDULER, "shift", 0.0, "more than 0"),
        (SCHEDULER, "flow_shift", 1e9, "at most 1000"),
        (SCHEDULER, "sigma_data", 0, "more than 0"),
        (SCHEDULER, "solver_order", 7, "at most 3"),
    ],
)
def test_a_number_that_can_not_be_is_refused_with_its_range(
    folder: Path, file: str, field: str, value: object, allowed: str
) -> None:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, field: value}))
    with pytest.raises(InvalidCheckpoint) as error:
        load(folder)
    shown = value[1] if isinstance(value, list) else value
    shown = NAN if isinstance(shown, dict) else shown
    assert error.value.message.startswith(f"{file}: {field}={shown} must be ")
    assert allowed in error.value.message
    assert any(f"{field}={shown}" in complaint for complaint in identify(folder).complaints)


@pytest.mark.parametrize("field", ["latents_mean", "latents_std"])
@pytest.mark.parametrize("count", [0, 3, 17])
@pytest.mark.parametrize("name", ["sd15", "wan"])
def test_there_is_one_number_for_each_channel(
    checkpoints: Callable[..., Path], tmp_path: Path, name: str, field: str, count: int
) -> None:
    folder = Path(shutil.copytree(checkpoints(name), tmp_path / "checkpoint"))
    config = json.loads((folder / VAE).read_text())
    (folder / VAE).write_text(json.dumps({**config, field: [1.0] * count}))
    with pytest.raises(InvalidCheckpoint, match=rf"{field} must have \d+ numbers, not {count}"):
        load(folder)


@pytest.mark.parametrize("field", ["scale_factor_spatial", "scale_factor_temporal"])
@pytest.mark.parametrize("value", [0, -1, 999])
def test_a_scale_of_wans_vae_that_can_not_be_is_refused(
    checkpoints: Callable[..., Path], tmp_path: Path, field: str, value: int
) -> None:
    folder = Path(shutil.copytree(checkpoints("wan"), tmp_path / "checkpoint"))
    config = json.loads((folder / VAE).read_text())
    (folder / VAE).write_text(json.dumps({**config, field: value}))
    with pytest.raises(InvalidCheckpoint, match=f"{field}={value} must be at least 1"):
        load(folder)


UNET, TEXT = "unet/config.json", "text_encoder/config.json"


@pytest.mark.parametrize(
    ("file", "field", "value", "allowed"),
    [
        (VAE, "scaling_factor", None, "a number"),
        (VAE, "norm_num_groups", 0, "a whole number of at least 1"),
        (VAE, "norm_num_groups", True, "a whole number of at least 1"),
        (VAE, "in_channels", "x", "a whole number of at least 0"),
        (VAE, "block_out_channels", 8, "a list of numbers"),
        (VAE, "block_out_channels", [8, "x"], "a list of numbers"),
        (VAE, "layers_per_block", 0.5, "a whole number of at least 0"),
        (UNET, "norm_eps", None, "a number"),
        (UNET, "mid_block_scale_factor", "x", "a number"),
        (UNET, "downsample_padding", [0], "a whole number of at least 0"),
        (UNET, "freq_shift", {}, "a whole number of at least 0"),
        (TEXT, "layer_norm_eps", "x", "a number"),
        (TEXT, "num_attention_heads", -1, "a whole number of at least 1"),
        (TEXT, "hidden_size", None, "a whole number of at least 0"),
        (SCHEDULER, "beta_start", None, "a number"),
        (SCHEDULER, "num_train_timesteps", None, "a whole number of at least 0"),
    ],
)
def test_what_a_class_declares_as_a_number_is_one(
    folder: Path, file: str, field: str, value: object, allowed: str
) -> None:
    """Without the check, some of these fail each request, and the others don't name the field."""
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, field: value}))
    with pytest.raises(InvalidCheckpoint) as error:
        load(folder)
    assert error.value.message == f"{file}: {field}={value!r} must be {allowed}"


def test_numbers_that_are_not_set_are_fine(folder: Path) -> None:
    for file, field in ((VAE, "scaling_factor"), (SCHEDULER, "trained_betas")):
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, field: None if field[0] == "t" else 1}))
    assert load(folder).model_info("test").warnings == ()
