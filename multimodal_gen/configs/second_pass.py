"""The second pass of a request that is upscaled: image-to-image from the result of the first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    from multimodal_gen.configs.sampling_params import SamplingParams

LARGEST_FACTOR = 8
_FIELDS = ("factor", "strength", "steps")
_ALLOWED = 'must be FACTOR[:STRENGTH[:STEPS]] or {"factor": …, "strength": …, "steps": …}'


@dataclass(frozen=True)
class UpscaleChoice:
    """Enlarge the result, and generate once more from it."""

    factor: float
    """Of width and height."""
    strength: float = 0.4
    """How much of the enlarged image is replaced."""
    steps: int | None = None
    """`num_inference_steps` of the second pass; None: those of the first."""

    @classmethod
    def of(cls, given: object) -> UpscaleChoice:
        """Parse FACTOR, FACTOR:STRENGTH, FACTOR:STRENGTH:STEPS or {"factor": …, "strength": …,
        "steps": …}. Raises InvalidRequest."""
        if isinstance(given, str):
            given = _parsed(given)
        elif isinstance(given, int | float):
            given = {"factor": given}
        if isinstance(given, Mapping) and "factor" in given and given.keys() <= {*_FIELDS}:
            given = cls(**{name: value for name, value in given.items() if value is not None})
        if not isinstance(given, cls):
            raise InvalidRequest("upscale", given, _ALLOWED)
        given._check()
        return given

    def __str__(self) -> str:
        return ":".join(str(value) for value in asdict(self).values() if value is not None)

    def _check(self) -> None:
        for name in ("factor", "strength"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRequest("upscale", value, f"{name} must be a number")
        if not 1 < self.factor <= LARGEST_FACTOR:
            allowed = f"factor must be more than 1 and at most {LARGEST_FACTOR}"
            raise InvalidRequest("upscale", self.factor, allowed)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int | None):
            raise InvalidRequest("upscale", self.steps, "steps must be a whole number")


UpscaleLike = UpscaleChoice | str | float | Mapping[str, Any]
"""Values that `UpscaleChoice.of` accepts."""


def _parsed(text: str) -> dict[str, Any]:
    values = text.split(":")
    try:
        numbers = [kind(value) for kind, value in zip((float, float, int), values, strict=False)]
    except ValueError:
        numbers = []
    if len(numbers) != len(values):
        raise InvalidRequest("upscale", text, _ALLOWED)
    return dict(zip(_FIELDS, numbers, strict=False))


def second_pass(params: SamplingParams, size_multiple: int) -> SamplingParams | None:
    """Parameters of the second pass of a request with resolved parameters, if it has one.

    Its sides are those of the first pass times the factor, rounded to a multiple.
    """
    choice = params.upscale
    if choice is None:
        return None
    assert params.width is not None
    assert params.height is not None
    sides = (round(side * choice.factor / size_multiple) for side in (params.width, params.height))
    width, height = (max(1, side) * size_multiple for side in sides)
    steps = params.num_inference_steps if choice.steps is None else choice.steps
    return replace(
        params,
        width=width,
        height=height,
        strength=choice.strength,
        num_inference_steps=steps,
        sigmas=params.sigmas if steps == params.num_inference_steps else (),
        upscale=None,
    )


@contextmanager
def naming_upscale(params: SamplingParams) -> Iterator[None]:
    """Have what is wrong with the second pass called so."""
    try:
        yield
    except InvalidRequest as error:
        message = f"its second pass: {error.message}"
        raise InvalidRequest("upscale", str(params.upscale), message) from error


def expected_steps(params: SamplingParams) -> int:
    """Steps of all passes, before the engine has told how many they are."""
    steps, choice = params.num_inference_steps or 1, params.upscale
    if choice is None:
        return steps
    return steps + max(1, math.floor((choice.steps or steps) * choice.strength))


def pixels_of(params: SamplingParams) -> list[int]:
    """Pixels of each pass."""
    first = (params.width or 1) * (params.height or 1) * (params.num_frames or 1)
    return [first] if params.upscale is None else [first, int(first * params.upscale.factor**2)]


def pixel_steps(params: SamplingParams) -> float:
    """Grows with the time that the request takes."""
    steps = params.num_inference_steps or 1
    each = [steps, expected_steps(params) - steps]
    return sum(pixels * count for pixels, count in zip(pixels_of(params), each, strict=False))
