"""Types for declaring sampling parameters; see `SamplingParams`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bound = float | str | None
"""A number, or its path in `ModelInfo`: "limits.max_steps". None: no bound."""
Need = Literal["parameter", "image_model", "image", "mask", "video", "guidance"]
"""What a parameter needs to have an effect. parameter: a model whose `ModelInfo.parameters` names
it; other models reject it. image_model: a model that takes an input image. image: an input image or
video. mask: an input image and a mask. video: a model that generates videos. guidance: a model with
classifier-free guidance."""


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """Declaration of a sampling parameter, except its name, type and constant default."""

    help: str
    """One line without a final full stop."""
    unit: str = ""
    """In the plural, such as pixels."""
    lowest: Bound = None
    highest: Bound = None
    exclusive: bool = False
    """Whether `lowest` itself is not allowed."""
    multiple_of: str = ""
    """Path in `ModelInfo` of the number that values, minus `remainder`, must be multiples of."""
    remainder: str = ""
    """Path in `ModelInfo` of that number; empty: 0."""
    one_of: str = ""
    """Path in `ModelInfo` of the allowed texts."""
    needs: tuple[Need, ...] = ()
    option: str = ""
    """Argument of the server without which no model has it."""
    default: str = ""
    """Description of a default that is not a constant."""
    model_default: bool = False
    """Whether `ModelInfo.defaults` has its default."""
    fallback: int | float | None = None
    """The model default for models that state none."""
    required: bool = False
    """Whether it has a value once defaults are filled in."""
    local: bool = False
    """Whether it names a local file: accepted by the CLI and Python, never over HTTP."""
    keyword_type: str = ""
    """The type of its Python keyword, where that allows more than the field holds."""
