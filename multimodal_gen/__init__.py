"""Pictures and videos from diffusion models, served step by step.

The names below are imported when first used: importing the package pulls in no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from multimodal_gen.version import __version__

if TYPE_CHECKING:
    from multimodal_gen.configs.sampling_params import SamplingParams as SamplingParams
    from multimodal_gen.configs.server_args import ServerArgs as ServerArgs
    from multimodal_gen.entrypoints.python.diffusion_generator import (
        DiffusionGenerator as DiffusionGenerator,
    )
    from multimodal_gen.entrypoints.python.generation_result import (
        GenerationResult as GenerationResult,
    )
    from multimodal_gen.entrypoints.python.generation_result import (
        GenerationResults as GenerationResults,
    )
    from multimodal_gen.entrypoints.python.generation_result import Progress as Progress
    from multimodal_gen.messages.model_info import ModelInfo as ModelInfo
    from multimodal_gen.messages.request_warning import RequestWarning as RequestWarning
    from multimodal_gen.postprocess.metadata import Recipe as Recipe
    from multimodal_gen.postprocess.metadata import read_parameters as read_parameters

_HOMES = {
    "DiffusionGenerator": "multimodal_gen.entrypoints.python.diffusion_generator",
    "GenerationResult": "multimodal_gen.entrypoints.python.generation_result",
    "GenerationResults": "multimodal_gen.entrypoints.python.generation_result",
    "ModelInfo": "multimodal_gen.messages.model_info",
    "Progress": "multimodal_gen.entrypoints.python.generation_result",
    "Recipe": "multimodal_gen.postprocess.metadata",
    "RequestWarning": "multimodal_gen.messages.request_warning",
    "SamplingParams": "multimodal_gen.configs.sampling_params",
    "ServerArgs": "multimodal_gen.configs.server_args",
    "read_parameters": "multimodal_gen.postprocess.metadata",
}
_MODULES = ("errors",)
__all__ = [
    "DiffusionGenerator",
    "GenerationResult",
    "GenerationResults",
    "ModelInfo",
    "Progress",
    "Recipe",
    "RequestWarning",
    "SamplingParams",
    "ServerArgs",
    "__version__",
    "read_parameters",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        from difflib import get_close_matches

        nearest = get_close_matches(name, __all__, 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        message = f"module {__name__!r} has no attribute {name!r}{hint}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted((*__all__, *_MODULES))
