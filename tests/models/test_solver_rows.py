"""A solver is one row: everything that lists solvers, and everything that loads, follows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engineless import load, run
from http_serving import MODEL, app_with, ask

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import SOLVERS, SolverSpec, View, solvers_of
from multimodal_gen.entrypoints.cli.commands.models import models
from multimodal_gen.entrypoints.http.comfyui.graph.samplers import samplers_of
from multimodal_gen.entrypoints.http.media.solvers import solver_named
from multimodal_gen.entrypoints.http.ops.playground import page
from multimodal_gen.errors import QueueFull
from multimodal_gen.postprocess.infotext import write

Checkpoints = Callable[..., Path]

SA_SOLVER = SolverSpec(
    name="sa_solver",
    scheduler="SASolverScheduler",
    views={View.NOISE: {}},
    a1111="SA-Solver",
    comfyui=("sa_solver_pece",),
    aliases=("k_sa_solver",),
)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a solver whose row stands in the table for one test."""
    monkeypatch.setitem(SOLVERS, SA_SOLVER.name, SA_SOLVER)  # type: ignore[arg-type]
    return SA_SOLVER.name


@pytest.fixture
def folder(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A checkpoint for noise prediction, to be changed."""
    return Path(shutil.copytree(checkpoints("sd15"), tmp_path / "checkpoint"))


def with_scheduler(folder: Path, class_name: str, **config: Any) -> Path:
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", class_name]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    return folder


def test_the_command_line_lists_a_new_solver_for_every_family_of_its_view(
    added: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for family in FAMILIES:
        models(family=family.name)
        listed = capsys.readouterr().out.partition("schedulers")[2].splitlines()[0].split(", ")
        assert (added in listed) == (View.NOISE in family.views), family.name


def test_a_checkpoint_of_its_view_takes_a_new_solver(added: str, folder: Path) -> None:
    pipeline = load(folder)
    assert added in pipeline.model_info("test").schedulers
    params = SamplingParams(prompt="a heart", num_inference_steps=2, scheduler=added)
    assert run(pipeline, params).latents.isfinite().all()


def test_a_checkpoint_whose_own_scheduler_is_a_new_solvers_loads(added: str, folder: Path) -> None:
    with_scheduler(folder, SA_SOLVER.scheduler, num_train_timesteps=1000)
    assert load(folder).model_info("test").schedulers[0] == added


def test_other_programs_find_a_new_solver_by_their_names_for_it(added: str) -> None:
    model = msgspec.structs.replace(MODEL, schedulers=("ddim", "euler", added))
    entry = {"name": "SA-Solver", "aliases": [added, "k_sa_solver"], "options": {}}
    listed = ask(app_with(model=model, ends=QueueFull("")), "GET", "/sdapi/v1/samplers")
    assert entry in listed.json()
    assert samplers_of(model.schedulers) == {
        "ddim": "ddim",
        "euler": "euler",
        "sa_solver_pece": added,
    }
    assert solver_named("k_sa_solver", model.schedulers) == added
    assert "Sampler: SA-Solver," in write(SamplingParams(prompt="x", scheduler=added), "model", "1")
    assert f'"SA-Solver":["{added}"]' in page()


def test_a_family_lists_what_its_published_checkpoints_come_with_first() -> None:
    listed = {family.name: family.schedulers for family in FAMILIES}
    assert (
        listed["flux"] == solvers_of(View.FLOW) == ("flow_euler", "flow_heun", "flow_lcm", "unipc")
    )
    assert listed["wan"] == ("unipc", "flow_euler", "flow_heun", "flow_lcm")
    assert listed["sana"] == ("dpmpp_2m", "flow_euler", "flow_heun", "flow_lcm", "unipc")
    assert listed["fallback"] == ()


def test_what_a_familys_checkpoints_come_with_is_a_solver() -> None:
    assert {family.own_solver for family in FAMILIES} - {None} <= SOLVERS.keys()


@pytest.mark.parametrize("view", View)
def test_a_name_of_another_program_means_one_solver_of_a_view(view: View) -> None:
    rows = [SOLVERS[name] for name in solvers_of(view)]
    for names in ([name for row in rows for name in row.comfyui], [row.a1111 for row in rows]):
        known = [name for name in names if name is not None]
        assert len(known) == len(set(known))
