"""The vocabulary in which sampling parameters are declared; see `SamplingParams`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bound = float | str | None
"""A number, or where `ModelInfo` has it: "limits.max_steps". None: no bound."""
Need = Literal["parameter", "image_model", "image", "video", "guidance"]
"""What a parameter needs to have an effect. parameter: a model whose `ModelInfo.parameters` names
it; other models refuse it. image_model: a model that takes an input image. image: an input image.
video: a model that makes videos. guidance: a model with classifier-free guidance."""


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """What is declared about a sampling parameter beyond its name, type and constant default."""

    help: str
    """One line without a final full stop."""
    unit: str = ""
    """In the plural, such as pixels."""
    lowest: Bound = None
    highest: Bound = None
    exclusive: bool = False
    """Whether `lowest` itself is not allowed."""
    multiple_of: str = ""
    """Where `ModelInfo` has the number that values, less `remainder`, must be multiples of."""
    remainder: int = 0
    one_of: str = ""
    """Where `ModelInfo` has the texts that are allowed."""
    needs: tuple[Need, ...] = ()
    default: str = ""
    """In words, where it is not a constant."""
    model_default: bool = False
    """Whether `ModelInfo.defaults` has its default."""
    fallback: int | float | None = None
    """That default for models that state none."""
    required: bool = False
    """Whether it has a value once defaults are filled in."""
    local: bool = False
    """Whether it names a local file: taken by the CLI and Python, never over HTTP."""
    keyword_type: str = ""
    """The type of its Python keyword, where that allows more than the field holds."""
