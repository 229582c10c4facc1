"""Requests for a benchmark: no two of them with the same prompt or seed."""

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
"""Parameters that diffusers' pipelines know by the same names; those left None are not passed."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """One output, for either side."""

    req: Req
    settings: dict[str, int | float | str]
    """All that was asked for but prompt and seed, as diffusers' pipelines know it."""

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

    def request(self, **params: int) -> BenchmarkRequest:
        """Make a request unlike all before; `params` are SamplingParams other than the defaults."""
        number = next(self._numbers)
        thing = _THINGS[number % len(_THINGS)]
        prompt = f"a {_COLOURS[number % len(_COLOURS)]} {thing}, number {number}"
        given = SamplingParams.from_fields(prompt=prompt, seed=number, **params)
        (req,) = requests_of(given, self.model)
        values = {name: getattr(req.params, name) for name in self._settings}
        return BenchmarkRequest(
            req, {name: value for name, value in values.items() if value is not None}
        )

    def requests(self, count: int, **params: int) -> list[BenchmarkRequest]:
        return [self.request(**params) for _ in range(count)]
