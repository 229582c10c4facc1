"""Solvers that suit a checkpoint, by its scheduler_config."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from multimodal_gen.configs.solvers import SOLVERS, SolverSpec, View, scheduler_classes
from multimodal_gen.errors import InvalidCheckpoint

_NEAREST = {
    View.NOISE: "dpmpp_2m",
    View.SHIFTED_NOISE: "cogvideox_ddim",
    View.PRECONDITIONED: "edm_dpmpp_2m",
    View.FLOW: "flow_euler",
}
"""For a checkpoint whose scheduler is not a solver's, and not another name of one."""
_SETTINGS: Mapping[View, tuple[str, ...]] = {
    View.SHIFTED_NOISE: ("snr_shift_scale",),
    View.NOISE: ("beta_start", "trained_betas"),
    View.FLOW: ("shift", "flow_shift"),
}
"""Settings that only schedulers of a view have."""
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")


def view_of(config: Mapping[str, Any]) -> View:
    """Kind of prediction of the model of a checkpoint with this scheduler_config.

    A class with only one view, other than noise, determines it; otherwise the config does.
    Raises `InvalidCheckpoint` if neither says it.
    """
    known = _views(config)
    if len(known) == 1 and View.NOISE not in known:
        return known.pop()
    if config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas"):
        return View.FLOW
    if known:
        return View.NOISE
    raise InvalidCheckpoint(
        f"scheduler_config.json: _class_name={config.get('_class_name')!r} is not one of "
        f"{', '.join(scheduler_classes())}, and the other settings do not say what the model "
        "predicts"
    )


def solver_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names that a checkpoint with this scheduler_config allows, including its own.

    Raises `InvalidCheckpoint` if no solver would be right.
    """
    own = default_solver_name(config)
    return tuple(name for name in SOLVERS if name == own or _suits(SOLVERS[name], config))


def default_solver_name(config: Mapping[str, Any]) -> str:
    """Name of the checkpoint's own scheduler class, or of the solver nearest to it.

    Raises `InvalidCheckpoint` if no solver would be right.
    """
    marked = sorted(_own_rows(config), key=lambda row: len(row.marks), reverse=True)
    fitting = (row.name for row in marked if _has_marks(config, row.marks))
    return next(fitting, None) or _nearest(config)


def replacement_warning(config: Mapping[str, Any]) -> str | None:
    """Say which solver replaces the checkpoint's own scheduler; None if it is a solver's."""
    if _own_rows(config):
        return None
    return (
        f"the checkpoint's scheduler, {config.get('_class_name')}, is not supported: "
        f"{default_solver_name(config)} replaces it, unless a request sets `scheduler`"
    )


def _own_rows(config: Mapping[str, Any]) -> list[SolverSpec]:
    """Rows of the checkpoint's class, if that supports what the model predicts."""
    rows = (row for row in SOLVERS.values() if row.scheduler == config.get("_class_name"))
    return [row for row in rows if _takes_prediction(row, config)]


def _views(config: Mapping[str, Any]) -> set[View]:
    """Views of the class, or of classes with such settings."""
    name, predicts = str(config.get("_class_name")), config.get("prediction_type", "epsilon")
    named = (row for row in SOLVERS.values() if name in (row.scheduler, *row.replaces))
    known = {view for row in named for view in row.views}
    if known or predicts not in PREDICTION_TYPES:
        return known
    if name.startswith("FlowMatch"):
        return {View.FLOW}
    if "sigma_data" in config:
        return {View.PRECONDITIONED}
    found = (view for view, settings in _SETTINGS.items() if not config.keys().isdisjoint(settings))
    return set(list(found)[:1])


def _nearest(config: Mapping[str, Any]) -> str:
    """Name of the solver that stands in for the checkpoint's class."""
    name, usual = config.get("_class_name"), _NEAREST[view_of(config)]
    suitable = [row for row in SOLVERS.values() if _suits(row, config)]
    by_class = (row.name for row in suitable if name in row.replaces)
    by_view = (row.name for row in suitable if row.name == usual)
    if found := next(chain(by_class, by_view), None):
        return found
    raise InvalidCheckpoint(
        f"scheduler_config.json: {name} is not supported, nor is another scheduler for its "
        f"prediction_type={config.get('prediction_type')!r}"
    )


def _has_marks(config: Mapping[str, Any], marks: Mapping[str, str]) -> bool:
    return all(mark in str(config.get(key)) for key, mark in marks.items())


def _takes_prediction(row: SolverSpec, config: Mapping[str, Any]) -> bool:
    return row.sample_prediction or config.get("prediction_type") != "sample"


def _suits(row: SolverSpec, config: Mapping[str, Any]) -> bool:
    if config.get("invert_sigmas"):
        return row.inverted_sigmas
    if not _takes_prediction(row, config):
        return False
    return view_of(config) in row.views
