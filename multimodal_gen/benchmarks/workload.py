"""Benchmark requests, all with different prompts and seeds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of

_THINGS = ("heart", "pizza", "rocket", "dog", "tree", "book", "car", "star", "fish", "house")
_COLOURS = ("red", "blue", "green", "yellow", "purple", "pink", "black")
_SETTINGS = (
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompt",
    "max_sequence_length",
)
"""Parameters with the same names in diffusers' pipelines; None values are not passed."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """One output, for either side."""

    req: Req
    settings: dict[str, int | float | str]
    """All parameters except prompt and seed, as keyword arguments of diffusers' pipelines."""

    @property
    def prompt(self) -> str:
        return self.req.params.prompt

    @property
    def seed(self) -> int:
        assert self.req.params.seed is not None
        return self.req.params.seed


class Workload:
    """An endless supply of new requests for one model."""

    def __init__(self, model: ModelInfo) -> None:
        self.model = model
        self._settings = (
            (*_SETTINGS, "num_frames") if "num_frames" in model.parameters else _SETTINGS
        )
        self._numbers = itertools.count(1)

    def request(self, **params: int | str) -> BenchmarkRequest:
        """Create a request unlike all before; `params` override the default SamplingParams."""
        number = next(self._numbers)
        return self._request(prompt=f"{_thing(number)}, number {number}", seed=number, **params)

    def things(self, count: int) -> list[BenchmarkRequest]:
        """Requests of plain prompts, which small models know too; up to 70 differ."""
        return [self._request(prompt=_thing(number), seed=number) for number in range(count)]

    def again(self, request: BenchmarkRequest, **params: int | str) -> BenchmarkRequest:
        """Create one of the same prompt and seed."""
        return self._request(prompt=request.prompt, seed=request.seed, **params)

    def _request(self, **params: int | str) -> BenchmarkRequest:
        given = SamplingParams.from_fields(**params)
        (req,) = requests_of(given, self.model)
        values = {name: getattr(req.params, name) for name in self._settings}
        return BenchmarkRequest(
            req, {name: value for name, value in values.items() if value is not None}
        )

    def requests(self, count: int, **params: int | str) -> list[BenchmarkRequest]:
        return [self.request(**params) for _ in range(count)]


def _thing(number: int) -> str:
    return f"a {_COLOURS[number % len(_COLOURS)]} {_THINGS[number % len(_THINGS)]}"
