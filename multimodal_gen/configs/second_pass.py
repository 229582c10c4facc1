"""Ways to enlarge a result: by a model or by Lanczos, and by a second pass, image-to-image from the
result of the first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    from multimodal_gen.configs.sampling_params import SamplingParams

LARGEST_FACTOR = 8
STRENGTH = 0.4
"""Of the second pass, where no model enlarges."""
_FIELDS = ("factor", "strength", "steps", "model")
_ALLOWED = (
    "must be FACTOR[:STRENGTH[:STEPS]], which MODEL@ may precede, or "
    '{"factor": …, "strength": …, "steps": …, "model": …}'
)


@dataclass(frozen=True)
class UpscaleChoice:
    """Enlarge the result, and generate once more from it."""

    factor: float
    """Of width and height."""
    strength: float | None = None
    """How much of the enlarged image is replaced. None: 0.4; with a model, there is no second
    pass."""
    steps: int | None = None
    """`num_inference_steps` of the second pass; None: those of the first."""
    model: str | None = None
    """Name of a file in the operator's folder of upscalers; None: Lanczos."""

    def __post_init__(self) -> None:
        if self.strength is None and self.model is None:
            object.__setattr__(self, "strength", STRENGTH)

    @classmethod
    def of(cls, given: object) -> UpscaleChoice:
        """Parse [MODEL@]FACTOR[:STRENGTH[:STEPS]], or an object of these. Raises
        InvalidRequest."""
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
        model = "" if self.model is None else f"{self.model}@"
        numbers = (self.factor, self.strength, self.steps)
        return model + ":".join(str(number) for number in numbers if number is not None)

    def _check(self) -> None:
        for name in ("factor", "strength"):
            value = getattr(self, name)
            if name == "strength" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRequest("upscale", value, f"{name} must be a number")
        if not isinstance(self.model, str | None) or self.model == "":
            raise InvalidRequest("upscale", self.model, "model must be the name of an upscaler")
        if not 1 < self.factor <= LARGEST_FACTOR:
            allowed = f"factor must be more than 1 and at most {LARGEST_FACTOR}"
            raise InvalidRequest("upscale", self.factor, allowed)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int | None):
            raise InvalidRequest("upscale", self.steps, "steps must be a whole number")
        if self.steps is not None and self.strength is None:
            raise InvalidRequest("upscale", self.steps, "steps needs a strength: a second pass")


UpscaleLike = UpscaleChoice | str | float | Mapping[str, Any]
"""Values that `UpscaleChoice.of` accepts."""


def _parsed(text: str) -> dict[str, Any]:
    model, at, numbers = text.rpartition("@")
    return {**_numbers(numbers, text), **({"model": model} if at else {})}


def _numbers(given: str, text: str) -> dict[str, Any]:
    values = given.split(":")
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
    if choice is None or choice.strength is None:
        return None
    steps = params.num_inference_steps if choice.steps is None else choice.steps
    return replace(
        _enlarged(params, choice.factor, size_multiple),
        strength=choice.strength,
        num_inference_steps=steps,
        sigmas=params.sigmas if steps == params.num_inference_steps else (),
    )


def enlarged_by_model(params: SamplingParams) -> SamplingParams | None:
    """Parameters of what a model makes of the result of a request with resolved parameters, if one
    does: of its own size, without a second pass."""
    choice = params.upscale
    if choice is None or choice.model is None:
        return None
    return _enlarged(params, choice.factor, 1)


def _enlarged(params: SamplingParams, factor: float, multiple: int) -> SamplingParams:
    assert params.width is not None
    assert params.height is not None
    sides = (round(side * factor / multiple) for side in (params.width, params.height))
    width, height = (max(1, side) * multiple for side in sides)
    return replace(params, width=width, height=height, upscale=None)


@contextmanager
def naming_upscale(
    params: SamplingParams, what: Literal["its second pass", "its result"] = "its second pass"
) -> Iterator[None]:
    """Have what is wrong with the second pass, or with the enlarged result, called so."""
    try:
        yield
    except InvalidRequest as error:
        message = f"{what}: {error.message}"
        raise InvalidRequest("upscale", str(params.upscale), message) from error


def expected_steps(params: SamplingParams) -> int:
    """Steps of all passes, before the engine has told how many they are."""
    steps, choice = params.num_inference_steps or 1, params.upscale
    if choice is None or choice.strength is None:
        return steps
    return steps + max(1, math.floor((choice.steps or steps) * choice.strength))


def pixels_of(params: SamplingParams) -> list[int]:
    """Pixels of each pass."""
    first = (params.width or 1) * (params.height or 1) * (params.num_frames or 1)
    choice = params.upscale
    if choice is None or choice.strength is None:
        return [first]
    return [first, int(first * choice.factor**2)]


def pixel_steps(params: SamplingParams) -> float:
    """Grows with the time that the request takes."""
    steps = params.num_inference_steps or 1
    each = [steps, expected_steps(params) - steps]
    return sum(pixels * count for pixels, count in zip(pixels_of(params), each, strict=False))
