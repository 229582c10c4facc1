"""Checkpoints that were published with a scheduler of any class: theirs, or the nearest."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import pytest
from engineless import load, run
from parity import check_parity
from tiny_checkpoints.schedulers import FLUX_DEV, SD15, SDXL

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solver_choice import default_solver_name, solver_names, view_of
from multimodal_gen.configs.solvers import SOLVERS, View, scheduler_classes
from multimodal_gen.entrypoints.cli.commands.models import models
from multimodal_gen.errors import InvalidCheckpoint

Checkpoints = Callable[..., Path]

CALL: dict[str, Any] = {
    "prompt": "a red heart",
    "width": 64,
    "height": 64,
    "num_inference_steps": 5,
    "guidance_scale": 3.0,
    "seed": 3,
}
_BETAS = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085}
_EDM = {"sigma_max": 80.0, "sigma_min": 0.002, "sigma_data": 0.5, "num_train_timesteps": 1000}
PUBLISHED: dict[str, tuple[str, dict[str, Any], str]] = {
    "dreamshaper-8": (
        "sd15",
        {**SD15, "_class_name": "DEISMultistepScheduler", "solver_order": 2},
        "deis",
    ),
    "lcm": ("sd15", {**SD15, "_class_name": "LCMScheduler"}, "lcm"),
    "tcd": ("sd15", {**SD15, "_class_name": "TCDScheduler"}, "tcd"),
    "heun": ("sdxl", {**SDXL, "_class_name": "HeunDiscreteScheduler"}, "heun"),
    "karras": (
        "sdxl",
        {**SDXL, "_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
        "euler",
    ),
    "single-step": (
        "sd15",
        {**SD15, "_class_name": "DPMSolverSinglestepScheduler"},
        "dpmpp_2s",
    ),
    "kdpm2": ("sd15", {**SD15, "_class_name": "KDPM2DiscreteScheduler"}, "dpm2"),
    "lms": ("sd15", {**SD15, "_class_name": "LMSDiscreteScheduler"}, "lms"),
    "playground-2.5": (
        "sdxl",
        {"_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 2, **_EDM},
        "edm_dpmpp_2m",
    ),
    "edm sigma_min": (
        "sdxl",
        {
            "_class_name": "EDMDPMSolverMultistepScheduler",
            "final_sigmas_type": "sigma_min",
            "lower_order_final": False,
            **_EDM,
        },
        "edm_dpmpp_2m",
    ),
    "edm-euler": ("sdxl", {"_class_name": "EDMEulerScheduler", **_EDM}, "edm_euler"),
    "sigma_min": (
        "sd15",
        {
            **SD15,
            "_class_name": "DPMSolverMultistepScheduler",
            "use_karras_sigmas": True,
            "final_sigmas_type": "sigma_min",
        },
        "dpmpp_2m",
    ),
    "unipc sigma_min": (
        "sd15",
        {
            **SD15,
            "_class_name": "UniPCMultistepScheduler",
            "use_karras_sigmas": True,
            "final_sigmas_type": "sigma_min",
        },
        "unipc",
    ),
    "lu": (
        "sd15",
        {
            **SD15,
            "_class_name": "DPMSolverMultistepScheduler",
            "use_lu_lambdas": True,
            "final_sigmas_type": "sigma_min",
        },
        "dpmpp_2m",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_scheduler_gives_the_picture_of_diffusers(
    checkpoints: Checkpoints, name: str
) -> None:
    model, config, solver = PUBLISHED[name]
    folder = checkpoints(model, scheduler=config)
    pipeline = load(folder)
    info = pipeline.model_info("test")
    assert (info.schedulers[0], info.warnings) == (solver, ())
    check_parity(pipeline, folder, **CALL)


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in scheduler_classes()
        if not name.startswith(("EDM", "FlowMatch", "CogVideoX"))
    ),
)
def test_a_config_as_diffusers_saves_it_gives_the_picture_of_diffusers(
    checkpoints: Checkpoints, tmp_path: Path, name: str
) -> None:
    """With all settings of its class, some of which aren't finite numbers."""
    kind: Any = getattr(diffusers, name)
    kind.from_config(SD15, clip_sample=False).save_config(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    folder = checkpoints("sd15", scheduler=saved)
    check_parity(load(folder), folder, **CALL)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9, "low", [0.0]])
def test_a_clipping_of_everything_is_refused(
    checkpoints: Checkpoints, tmp_path: Path, value: object
) -> None:
    folder = Path(shutil.copytree(checkpoints("sd15"), tmp_path / "checkpoint"))
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**SD15, "lambda_min_clipped": value}))
    with pytest.raises(InvalidCheckpoint, match="lambda_min_clipped="):
        load(folder)


def test_cogvideox_with_ddim_gives_the_video_of_diffusers(checkpoints: Checkpoints) -> None:
    config = {**SD15, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
    folder = checkpoints("cogvideox", scheduler={**config, "steps_offset": 0})
    pipeline = load(folder)
    assert pipeline.model_info("test").schedulers[0] == "ddim"
    video = {"num_frames": 5, "max_sequence_length": 24}
    check_parity(pipeline, folder, **{**CALL, **video, "num_inference_steps": 3})


@pytest.mark.parametrize("solver", ["unipc", "dpmpp_2m", "dpmpp_3m_sde", "deis"])
def test_what_one_class_wants_of_its_last_step_does_not_ruin_anothers(
    checkpoints: Checkpoints, solver: str
) -> None:
    config = {**PUBLISHED["single-step"][1], "lower_order_final": False}
    pipeline = load(checkpoints("sd15", scheduler=config))
    assert run(pipeline, SamplingParams(**CALL, scheduler=solver)).latents.isfinite().all()


def test_edm_checkpoints_take_edm_solvers_only() -> None:
    """The others would tell the model timesteps that it was not trained with."""
    config = PUBLISHED["playground-2.5"][1]
    assert view_of(config) is View.PRECONDITIONED
    assert solver_names(config) == ("edm_euler", "edm_dpmpp_2m")
    assert "edm_euler" not in solver_names(SDXL)


FOREIGN = [
    ({**SD15, "_class_name": "DDIMParallelScheduler"}, "ddim"),
    ({**SD15, "_class_name": "DDPMParallelScheduler"}, "ddpm"),
    ({**SD15, "_class_name": "DPMSolverSDEScheduler"}, "dpmpp_sde"),
    ({**SD15, "_class_name": "SASolverScheduler"}, "dpmpp_2m_sde"),
    ({**SD15, "_class_name": "RestartScheduler"}, "dpmpp_2m"),
    ({**SD15, "_class_name": "RestartScheduler", "prediction_type": "sample"}, "dpmpp_2m"),
    ({**SD15, "_class_name": "PNDMScheduler", "prediction_type": "sample"}, "dpmpp_2m"),
    ({"_class_name": "IPNDMScheduler", "num_train_timesteps": 1000}, "deis"),
    ({**_BETAS, "_class_name": "X", "prediction_type": "v_prediction"}, "dpmpp_2m"),
    ({**_BETAS, "_class_name": "X", "snr_shift_scale": 3.0}, "cogvideox_ddim"),
    ({**_EDM, "_class_name": "CosineDPMSolverMultistepScheduler"}, "edm_dpmpp_2m"),
    ({**FLUX_DEV, "_class_name": "LTXEulerAncestralRFScheduler"}, "flow_euler"),
    ({"_class_name": "FlowMatchNewScheduler"}, "flow_euler"),
    ({"_class_name": "X", "prediction_type": "flow_prediction"}, "flow_euler"),
    ({"_class_name": "SASolverScheduler", "use_flow_sigmas": True}, "flow_euler"),
]


@pytest.mark.parametrize(("config", "nearest"), FOREIGN)
def test_an_unknown_scheduler_falls_to_the_nearest_of_its_view(
    config: dict[str, Any], nearest: str
) -> None:
    assert default_solver_name(config) == nearest
    assert view_of(config) in SOLVERS[nearest].views


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "SCMScheduler", "prediction_type": "trigflow", "sigma_data": 0.5},
        {"_class_name": "DDPMWuerstchenScheduler", "scaler": 1.0, "s": 0.008},
        {"_class_name": "os.system"},
        {**_EDM, "_class_name": "X", "prediction_type": "sample"},
    ],
)
def test_a_scheduler_that_nothing_could_replace_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidCheckpoint, match=str(config["_class_name"])):
        solver_names(config)


@pytest.fixture
def foreign(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A checkpoint whose scheduler is of nobody's class."""
    folder = Path(shutil.copytree(checkpoints("sd15"), tmp_path / "checkpoint"))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["my_package", "RestartScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_the_replacement_is_said_at_the_start_and_to_clients(
    foreign: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        info = load(foreign).model_info("test")
    (warning,) = info.warnings
    assert "RestartScheduler" in warning
    assert "dpmpp_2m" in warning
    assert warning in caplog.text
    assert msgspec.to_builtins(info)["warnings"] == (warning,)


def test_models_says_what_replaces_a_scheduler(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models(str(foreign)) == 0
    assert "warning: the checkpoint's scheduler, RestartScheduler" in capsys.readouterr().out


def test_a_request_chooses_any_solver_of_a_replaced_schedulers_view(foreign: Path) -> None:
    pipeline = load(foreign)
    for solver in pipeline.model_info("test").schedulers[:3]:
        params = SamplingParams(prompt="x", num_inference_steps=2, scheduler=solver)
        assert run(pipeline, params).pixels.std() > 1


def test_models_lists_for_sana_what_its_checkpoints_allow(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    models(family="sana")
    listed = capsys.readouterr().out.partition("schedulers")[2].splitlines()[0].strip().split(", ")
    assert listed == list(load(checkpoints("sana")).model_info("test").schedulers)
