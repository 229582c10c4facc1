"""What the routes know of the engine behind them, from before it exists until after its end."""

from __future__ import annotations

from multimodal_gen.errors import (
    Cancelled,
    EngineDied,
    EngineNotReady,
    ModelNotFound,
    MultimodalGenError,
)
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.runtime.scheduler_client import SchedulerClient

LOADING_RETRY_S = 5.0


class ServedEngine:
    """One engine's client, once there is one. Nothing here blocks."""

    def __init__(self, client: SchedulerClient | None = None) -> None:
        self.client = client
        self.stopping = False

    def ready(self) -> tuple[SchedulerClient, ModelInfo]:
        """The client and its model. Raises EngineNotReady, or what ended the engine."""
        if self.stopping:
            raise self._stopping()
        if self.client is not None and self.client.died is not None:
            raise self.client.died
        if self.client is None or self.client.model is None:
            error = EngineNotReady("the model is still loading")
            error.retry_after_s = LOADING_RETRY_S
            raise error
        return self.client, self.client.model

    def model(self, name: str) -> ModelInfo:
        """The served model, by its own name only. Raises ModelNotFound too."""
        model = self.ready()[1]
        if name != model.name:
            raise ModelNotFound(f"model {name[:120]!r} is not served here; {model.name!r} is")
        return model

    def reason(self, error: MultimodalGenError) -> MultimodalGenError:
        """What to tell a client whose request ended with `error`."""
        if self.stopping and isinstance(error, Cancelled | EngineDied):
            return self._stopping()
        return error

    def _stopping(self) -> EngineNotReady:
        return EngineNotReady("the server is stopping")
