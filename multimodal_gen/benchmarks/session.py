"""Shared by all measures: one engine and one diffusers process, each started on first use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from multimodal_gen.benchmarks.diffusers_process import DiffusersProcess
from multimodal_gen.benchmarks.engine_side import EngineSide
from multimodal_gen.benchmarks.workload import Workload
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.launch.model_path import find_model_files
from multimodal_gen.messages.model_info import ModelInfo


class Session:
    """One run of the benchmark. A context manager that ends the processes it started."""

    def __init__(self, args: EngineArgs, repeats: int, say: Callable[[str], None]) -> None:
        self.engine_args = args
        self.repeats = repeats
        self.say = say
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def engine(self) -> EngineSide:
        self.say("starting the engine")
        engine = self._stack.enter_context(EngineProcess.start(self.engine_args))
        engine.wait_ready()
        return EngineSide(engine.client)

    @property
    def used_diffusers(self) -> bool:
        return "diffusers" in vars(self)

    @cached_property
    def diffusers(self) -> DiffusersProcess:
        model = self.model  # the engine's values, so that both use the same device and dtype
        self.say("starting diffusers")
        return self._stack.enter_context(
            DiffusersProcess(str(self.folder), model.device, model.dtype)
        )

    @cached_property
    def folder(self) -> Path:
        return find_model_files(self.engine_args.model_path, self.engine_args.revision).folder

    @property
    def model(self) -> ModelInfo:
        model = self.engine.client.model
        assert model is not None
        return model

    @cached_property
    def workload(self) -> Workload:
        return Workload(self.model)

    def alternate(
        self, name: str, *sides: Callable[[], float], repeats: int | None = None
    ) -> list[list[float]]:
        """Run the sides alternately, after one warm-up of each; returns one list per side."""
        for side in sides:
            side()
        rounds = []
        for done in range(repeats or self.repeats):
            rounds.append([side() for side in sides])
            self.say(f"{name}: {done + 1} of {repeats or self.repeats}")
        return [list(values) for values in zip(*rounds, strict=True)]
