"""Pictures and videos from diffusion models, served step by step.

The names below are imported when first used: importing the package pulls in no torch.
"""

from __future__ import annotations

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
    from multimodal_gen.entrypoints.python.generation_result import Progress as Progress
    from multimodal_gen.postprocess.metadata import read_parameters as read_parameters

_HOMES = {
    "DiffusionGenerator": "multimodal_gen.entrypoints.python.diffusion_generator",
    "GenerationResult": "multimodal_gen.entrypoints.python.generation_result",
    "Progress": "multimodal_gen.entrypoints.python.generation_result",
    "SamplingParams": "multimodal_gen.configs.sampling_params",
    "ServerArgs": "multimodal_gen.configs.server_args",
    "read_parameters": "multimodal_gen.postprocess.metadata",
}
__all__ = [
    "DiffusionGenerator",
    "GenerationResult",
    "Progress",
    "SamplingParams",
    "ServerArgs",
    "__version__",
    "read_parameters",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
