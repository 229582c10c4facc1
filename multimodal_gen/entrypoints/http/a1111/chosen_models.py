"""The checkpoint that A1111's clients choose by an option: it holds until they choose another."""

from __future__ import annotations

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service

CHECKPOINT = "sd_model_checkpoint"


class ChosenModels:
    """Each owner's choice; without one, the default model. The web UI has one for everybody."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._names: dict[str, str] = {}

    def name_for(self, owner: Owner, wanted: object = None) -> str | None:
        """The model of a request, which may want another than its owner chose; None: the default.
        Raises ModelNotFound."""
        if not isinstance(wanted, str) or not wanted:
            return self._names.get(owner.name)
        found = self._find(wanted)
        return self._service.served(wanted).name if found is None else found.name

    async def info(self, owner: Owner) -> ModelInfo:
        """Raises EngineNotReady."""
        return await self._service.known(self.name_for(owner))

    def choose(self, owner: Owner, wanted: object) -> None:
        """Raises InvalidRequest for a model that is not served."""
        found = self._find(wanted) if isinstance(wanted, str) else None
        if found is None:
            served = ", ".join(repr(model.name) for model in self._service.fleet.models)
            one = ": a server has one model" if len(self._service.fleet.models) == 1 else ""
            raise InvalidRequest(CHECKPOINT, wanted, f"must be {served}{one}")
        self._names[owner.name] = found.name

    def _find(self, title: str) -> ServedModel | None:
        """The model that a client's title means; clients may add a hash to the name."""
        name = title.partition(" [")[0].lower()
        models = self._service.fleet.models
        return next((model for model in models if model.name.lower() == name), None)
