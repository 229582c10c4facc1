"""Stopping the jobs of A1111's clients, on an engine that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_engine import FakeEngine, settle

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.a1111.jobs import RunningJobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Task

OWNER = Owner()


def stopped(after: Callable[[FakeEngine, RunningJobs], Any], count: int = 1) -> Task:
    """A job that runs while `after` looks at it and stops it."""

    async def run() -> Task:
        engine = FakeEngine()
        service = Service.over(engine)  # type: ignore[arg-type]
        params = SamplingParams(prompt="a", num_outputs_per_prompt=count)
        task = service.start(params, owner=OWNER, previews=True)
        jobs = RunningJobs()
        with jobs.under_way(task):
            await settle()
            await after(engine, jobs)
            await settle()
        return task

    return asyncio.run(run())


@pytest.mark.parametrize("skip", [False, True])
def test_a_job_that_is_stopped_before_its_first_preview_goes_on_until_it_has_one(
    skip: bool,
) -> None:
    seen = []

    async def stop(engine: FakeEngine, jobs: RunningJobs) -> None:
        engine.step("a", 1)
        await settle()
        jobs.stop(OWNER, skip=skip)
        job = jobs.current(OWNER)
        assert job is not None
        seen.append((job.task.status, job.state()["stopping_generation"]))
        engine.show("a", 2)

    task = stopped(stop)
    assert seen == [("in_progress", True)]
    assert (task.status, [*task.previews]) == ("cancelled", [0])


def test_a_model_without_previews_is_stopped_once_one_is_overdue() -> None:
    statuses = []

    async def stop(engine: FakeEngine, jobs: RunningJobs) -> None:
        engine.step("a", 1)
        await settle()
        jobs.stop(OWNER)
        job = jobs.current(OWNER)
        assert job is not None
        for step in (2, 3, 4):  # of 20: a preview is due every second step
            engine.step("a", step)
            await settle()
            statuses.append(job.task.status)

    assert stopped(stop).previews == {}
    assert statuses == ["in_progress", "in_progress", "cancelled"]


def test_a_job_with_a_preview_is_stopped_at_once() -> None:
    async def stop(engine: FakeEngine, jobs: RunningJobs) -> None:
        engine.show("a", 2)
        await settle()
        jobs.stop(OWNER)

    assert stopped(stop).status == "cancelled"


def test_a_job_that_waits_is_stopped_at_once() -> None:
    async def stop(engine: FakeEngine, jobs: RunningJobs) -> None:
        jobs.stop(OWNER)

    task = stopped(stop)
    assert (task.status, task.previews) == ("cancelled", {})
