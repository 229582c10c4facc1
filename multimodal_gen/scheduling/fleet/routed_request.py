"""A request as the router sees it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from multimodal_gen.configs.second_pass import expected_steps
from multimodal_gen.messages.checks.fitting_sizes import latent_frames
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request import Req
from multimodal_gen.scheduling.job import LEVELS


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """Properties that the choice of an engine depends on."""

    id: str
    model: str
    """Name of the model; any engine that serves it will do."""
    tokens: int = 1
    """Tokens of one evaluation."""
    evaluations: int = 1
    level: int = LEVELS["normal"]
    owner: str = ""
    deadline: float | None = None
    """Time by which it must have ended, on the clock of `now`."""
    loras: frozenset[str] = frozenset()
    """Names of its LoRAs and controls."""
    prompt: Hashable = None
    """Equal for requests whose encoded prompts are shared."""
    suspect: bool = False
    """It may have killed an engine: it runs without neighbours until it is cleared."""

    @classmethod
    def of(
        cls, req: Req, model: ModelInfo, *, deadline: float | None = None, suspect: bool = False
    ) -> RoutedRequest:
        """Describe a request with resolved parameters. `deadline`: on the clock of `now`."""
        params = req.params
        frame = max(1, (params.width or 0) * (params.height or 0) // model.size_multiple**2)
        return cls(
            req.id,
            model.name,
            tokens=frame * latent_frames(params, model),
            evaluations=expected_steps(params),
            level=LEVELS[params.priority],
            owner=req.standing.owner,
            deadline=deadline,
            loras=frozenset(
                [each.name for each in params.lora] + [each.name for each in params.control]
            ),
            prompt=(params.prompt, params.negative_prompt),
            suspect=suspect,
        )
