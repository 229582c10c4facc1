"""Translates samplers and schedulers of the web UI into solvers and noise schedules."""

from __future__ import annotations

from dataclasses import dataclass, field

from multimodal_gen.configs.solvers import OWN_SPACING, a1111_name
from multimodal_gen.entrypoints.http.a1111.schema import Generation
from multimodal_gen.entrypoints.http.media.solvers import (
    has_schedule,
    nearest_solver,
    schedule_named,
    solver_named,
    split_schedule,
)
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request_warning import RequestWarning

ANY_SCHEDULE = ("", "automatic", "none")


@dataclass
class SamplerChoice:
    """The solver and noise schedule that a request names; None is the model's own."""

    solver: str | None = None
    noise_schedule: str | None = None
    warnings: list[RequestWarning] = field(default_factory=list)

    @classmethod
    def of(cls, body: Generation, model: ModelInfo) -> SamplerChoice:
        """Choose what the request names, or else the nearest that the model has."""
        index = body.sampler_index
        sampler = body.sampler_name or (index if isinstance(index, str) else "")
        choice = cls()
        schedule = body.scheduler or ""
        if sampler.lower() not in ANY_SCHEDULE:
            ending = choice._choose_solver(sampler, model)
            schedule = ending if schedule.lower() in ANY_SCHEDULE and ending else schedule
        if schedule.lower() not in ANY_SCHEDULE:
            choice._choose_schedule(schedule, model)
        return choice

    def _choose_solver(self, name: str, model: ModelInfo) -> str | None:
        """Return the noise schedule that is a part of the name."""
        self.solver = solver_named(name, model.schedulers)
        if self.solver is not None:
            return None
        base, schedule = split_schedule(name)
        self.solver = solver_named(base, model.schedulers)
        if self.solver is None and model.schedulers:
            self.solver = nearest_solver(base, model.schedulers)
            used = a1111_name(self.solver or "")
            text = f"sampler_name={_shown(name)}: this model uses {used} instead"
            self.warnings.append(RequestWarning("nearest_solver", "sampler_name", text))
        return schedule

    def _choose_schedule(self, name: str, model: ModelInfo) -> None:
        schedule = schedule_named(name)
        if schedule == OWN_SPACING:
            return
        solver = self.solver or next(iter(model.schedulers), None)
        if schedule is not None and has_schedule(solver, schedule, model.noise_schedules):
            self.noise_schedule = schedule
            return
        who = "this model" if solver is None else a1111_name(solver)
        text = f"scheduler={_shown(name)}: {who} uses its own schedule instead"
        self.warnings.append(RequestWarning("nearest_schedule", "scheduler", text))


def _shown(name: str) -> str:
    return repr(name)[:80]
