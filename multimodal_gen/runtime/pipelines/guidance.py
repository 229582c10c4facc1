"""Guidance: selects the branches of a request, and combines their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import join
from multimodal_gen.runtime.stages.stage import Guidance

Combine = Callable[[Tensor, Tensor, float | Tensor], Tensor]
"""(positive, negative, scale) -> the guided prediction, all [n, ...]; a tensor of scales is float32
[n, 1, ...]."""


class NoGuidance:
    """For a model that takes guidance as an input, or is distilled to need none."""

    scale_name: str | None = None

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        return ("positive",)

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        return prediction

    def guide_all(
        self, predictions: Tensor, states: Sequence[RequestState], rows: Sequence[int]
    ) -> Tensor:
        return predictions


def guide_each(
    guidance: Guidance, predictions: Tensor, states: Sequence[RequestState], rows: Sequence[int]
) -> Tensor:
    """Guide one request after another."""
    own = zip(predictions.split([*rows]), states, strict=True)
    return join([guidance.guide(prediction, state) for prediction, state in own])


def beyond_negative(positive: Tensor, negative: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance with diffusers' scale: 1 is the positive branch."""
    return negative + _times(scale, positive - negative)


def beyond_positive(positive: Tensor, negative: Tensor, scale: float | Tensor) -> Tensor:
    """Ho & Salimans 2022, eq. 6, whose scale is relative to the positive branch: 0 is that
    branch."""
    return positive + _times(scale, positive - negative)


def _times(scale: float | Tensor, x: Tensor) -> Tensor:
    """Product in the dtype of x, rounded once, as with a Python number."""
    return (scale * x).to(x.dtype)


def keeping_norm(positive: Tensor, negative: Tensor, scale: float | Tensor) -> Tensor:
    """`beyond_negative`, with each token rescaled to its norm in the positive branch."""
    guided = beyond_negative(positive, negative, scale)
    ratio: Tensor = positive.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True)
    return guided * ratio


class _Pairs:
    """Positive and negative rows of several requests, with their scales: usually those of the
    evaluation before."""

    def __init__(self, rows: Sequence[int], scales: Sequence[float], device: torch.device) -> None:
        """Request j has `rows[j]` of the rows: one is its own negative, which changes nothing."""
        self._rows, self._given = list(rows), list(scales)
        first = [end - count for end, count in zip(accumulate(rows), rows, strict=True)]
        last = [at + count - 1 for at, count in zip(first, rows, strict=True)]
        self._all_guided = all(count == 2 for count in rows)
        self._places = () if self._all_guided else [tensor_of(at, device) for at in (first, last)]
        self._scales = tensor_of(self._given, device)

    def are_of(self, rows: Sequence[int], scales: Sequence[float]) -> bool:
        return rows == self._rows and scales == self._given

    def of(self, predictions: Tensor) -> Sequence[Tensor]:
        """Positive and negative predictions, [n, ...] each."""
        if self._all_guided:
            return predictions.view(-1, 2, *predictions.shape[1:]).unbind(1)
        return [predictions.index_select(0, at) for at in self._places]

    def scales(self, dims: int) -> Tensor:
        """[n, 1, ...]."""
        return self._scales.view(-1, *[1] * (dims - 1))


class ClassifierFreeGuidance:
    """Guides by `guidance_scale` if it is more than `above`."""

    scale_name: str | None = "guidance_scale"

    def __init__(
        self, combine: Combine = beyond_negative, *, above: float = 1, float32: bool = False
    ) -> None:
        """`float32`: combine in float32, whatever the model's dtype."""
        self._combine = combine
        self._above = above
        self._float32 = float32
        self._pairs = _Pairs((), (), torch.device("cpu"))

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        return ("positive", "negative") if self.scale(params) > self._above else ("positive",)

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        if self._float32:
            prediction = prediction.float()
        if len(prediction) == 1:
            return prediction
        return self._combine(prediction[:1], prediction[1:], self.scale_now(state))

    def guide_all(
        self, predictions: Tensor, states: Sequence[RequestState], rows: Sequence[int]
    ) -> Tensor:
        if len(rows) == 1:
            return self.guide(predictions, states[0])
        if self._float32:
            predictions = predictions.float()
        if len(predictions) == len(rows):
            return predictions
        scales = [self.scale_now(state) for state in states]
        if not self._pairs.are_of(rows, scales):
            self._pairs = _Pairs(rows, scales, predictions.device)
        positive, negative = self._pairs.of(predictions)
        return self._combine(positive, negative, self._pairs.scales(predictions.dim()))

    def scale(self, params: SamplingParams) -> float:
        assert params.guidance_scale is not None
        return params.guidance_scale

    def scale_now(self, state: RequestState) -> float:
        """Scale of the current evaluation."""
        return self.scale(state.params)


class TrueCfgGuidance(ClassifierFreeGuidance):
    """Guides by `true_cfg_scale`, only if there is a negative prompt: for models that also take a
    guidance scale as an input."""

    scale_name: str | None = "true_cfg_scale"

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        return ("positive",) if params.negative_prompt is None else super().branches(params)

    def scale(self, params: SamplingParams) -> float:
        return 1.0 if params.true_cfg_scale is None else params.true_cfg_scale


def guidance_without_effect(
    guidance: Guidance, state: RequestState, defaults: Defaults
) -> list[str]:
    """Name the guidance parameters that a request sets and its model, or its other parameters,
    leave without effect. Call it once the request has its conditioning."""
    params, by, found = state.params, guidance.scale_name, []

    def is_set(name: str) -> bool:
        value = getattr(params, name)
        return bool(value) and value != getattr(defaults, name)

    taken = by == "guidance_scale" or "guidance" in state.conditioning["positive"]
    if params.guidance_scale != defaults.guidance_scale and not taken:
        found.append("guidance_scale has no effect: this model does not use it")
    if "negative" not in state.conditioning:
        if is_set("negative_prompt"):
            why = "this model has no guidance" if by is None else f"it needs a larger {by}"
            found.append(f"negative_prompt has no effect: {why}")
        elif is_set("true_cfg_scale"):
            found.append("true_cfg_scale has no effect without a negative prompt")
    return found
