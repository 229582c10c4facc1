"""All engines behind a server, by the models that they have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from multimodal_gen.configs.model_spec import ModelSpec
from multimodal_gen.errors import EngineNotReady, ModelNotFound
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.served_model import ServedModel

_LONGEST_SHOWN = 120


class Fleet:
    """The models of a server, and their engines. The first model is the default."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        addresses: Sequence[str] = (),
        bound: Callable[[ModelInfo], ModelInfo] = lambda info: info,
    ) -> None:
        """`addresses`: those of engines elsewhere. `bound` adds the operator's limits to what an
        engine reports."""
        self._bound = bound
        self.models: list[ServedModel] = []
        self.listeners: list[Callable[[Engine], None]] = []
        """Called after each change of an engine's status."""
        self._event = asyncio.Event()
        for spec in specs:
            self._add(spec)
        self._elsewhere = [
            Engine(name=address, address=address, tell=self._changed) for address in addresses
        ]
        """Engines whose model is unknown."""

    def _add(self, spec: ModelSpec) -> None:
        name = spec.name or "default"
        model = ServedModel(
            name=name,
            is_named=spec.name is not None,
            lora_dir=spec.engine.lora_dir,
            control_dir=spec.engine.control_dir,
            upscaler_dir=spec.engine.upscaler_dir,
        )
        for number in range(spec.replicas):
            engine_name = name if spec.replicas == 1 else f"{name}/{number}"
            engine = Engine(name=engine_name, args=spec.engine, model=model, tell=self._changed)
            model.engines.append(engine)
        self.models.append(model)

    @property
    def engines(self) -> Iterator[Engine]:
        for model in self.models:
            yield from model.engines
        yield from self._elsewhere

    @property
    def default(self) -> ServedModel:
        """Raises EngineNotReady while no engine elsewhere has told its model."""
        if not self.models:
            raise EngineNotReady("no engine is connected yet")
        return self.models[0]

    @property
    def is_known(self) -> bool:
        """True if the models of all engines are known."""
        return not self._elsewhere and all(m.is_named or m.info for m in self.models)

    def has(self, name: str) -> bool:
        """True if a model of this name is served."""
        return any(model.name == name for model in self.models)

    def is_decided(self, name: str) -> bool:
        """True if it is known whether a model of this name is served."""
        return self.is_known or self.has(name)

    def named(self, name: str) -> ServedModel:
        """The model of this name. Raises ModelNotFound, or EngineNotReady while the names of some
        models are unknown."""
        for model in self.models:
            if model.name == name:
                return model
        if not self.is_known:
            raise EngineNotReady("the model is still loading")
        served = ", ".join(repr(model.name) for model in self.models)
        what = f"model {name[:_LONGEST_SHOWN]!r} is not served; available: {served}"
        raise ModelNotFound(what)

    async def change(self) -> None:
        """Wait until the status of an engine changes."""
        await self._event.wait()

    def _changed(self, engine: Engine) -> None:
        if engine.status == "ready" and engine.client is not None and engine.client.model:
            self._adopt(engine, engine.client.model)
        for listener in self.listeners:
            listener(engine)
        self._event.set()
        self._event = asyncio.Event()

    def _adopt(self, engine: Engine, info: ModelInfo) -> None:
        if engine.model is None:
            engine.model = next((each for each in self.models if each.name == info.name), None)
            if engine.model is None:
                engine.model = ServedModel(name=info.name)
                self.models.append(engine.model)
            self._elsewhere.remove(engine)
            engine.model.engines.append(engine)
        engine.model.adopt(info, self._bound)
