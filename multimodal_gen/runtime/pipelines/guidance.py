"""Guidance: selects the branches of a request, and combines their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS, OF_APG
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.pipelines.guiding.formulas import (
    Number,
    beyond_negative,
    fitted,
    limited,
    projected,
    rescaled,
)
from multimodal_gen.runtime.stages.momentum import Momentum
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import join
from multimodal_gen.runtime.stages.stage import Guidance

Combine = Callable[[Tensor, Tensor, Tensor, Number], Tensor]
"""(positive, negative, away from the negative, scale) -> the guided prediction, all [n, ...]."""


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
        if not state.combined_at(state.evaluation):
            _, latents = state.running()
            return torch.zeros_like(latents)
        if self._float32:
            prediction = prediction.float()
        if prediction.shape[0] == 1:
            return prediction
        guided = self._guided(prediction[:1], prediction[1:], state)
        rescale = state.params.guidance_rescale
        return rescaled(guided, prediction[:1], rescale) if rescale else guided

    def _guided(self, positive: Tensor, negative: Tensor, state: RequestState) -> Tensor:
        method, scale = state.params.guidance_method, self.scale_now(state)
        if method == "cfg_zero":
            negative = fitted(negative, positive)
        away = positive - negative
        if method == "apg":
            away = _adapted(away, positive, state)
        return self._combine(positive, negative, away, scale)

    def guide_all(
        self, predictions: Tensor, states: Sequence[RequestState], rows: Sequence[int]
    ) -> Tensor:
        if len(rows) == 1:
            return self.guide(predictions, states[0])
        if not all(rows) or not all(map(_is_plain, states)):
            return guide_each(self, predictions, states, rows)
        if self._float32:
            predictions = predictions.float()
        if predictions.shape[0] == len(rows):
            return predictions
        scales = [self.scale_now(state) for state in states]
        if not self._pairs.are_of(rows, scales):
            self._pairs = _Pairs(rows, scales, predictions.device)
        positive, negative = self._pairs.of(predictions)
        scale = self._pairs.scales(predictions.dim())
        return self._combine(positive, negative, positive - negative, scale)

    def scale(self, params: SamplingParams) -> float:
        assert params.guidance_scale is not None
        return params.guidance_scale

    def scale_now(self, state: RequestState) -> float:
        """Scale of the current evaluation."""
        return self.scale(state.params)


def _is_plain(state: RequestState) -> bool:
    """True if the formula of its family is all."""
    params = state.req.params
    return params.guidance_method == "cfg" and not params.guidance_rescale


def _adapted(away: Tensor, positive: Tensor, state: RequestState) -> Tensor:
    """Adaptive projected guidance: `away` with momentum, limited, and across the prediction."""
    params = state.params
    if params.apg_momentum:
        state.momentum = state.momentum or Momentum()
        away = state.momentum.add(away, params.apg_momentum, state.evaluation)
    if params.apg_norm:
        away = limited(away, params.apg_norm)
    return projected(away, positive, params.apg_eta)


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
) -> list[RequestWarning]:
    """Name the guidance parameters that a request sets and its model, or its other parameters,
    leave without effect. Call it once the request has its conditioning."""
    params, by, found = state.params, guidance.scale_name, list[RequestWarning]()

    def is_set(name: str) -> bool:
        value = getattr(params, name)
        return bool(value) and value != getattr(defaults, name)

    if "negative" not in state.conditioning and by is not None:
        if is_set("negative_prompt"):
            why = f"it needs a larger {by}"
            found.append(RequestWarning.no_effect("negative_prompt", why))
        elif params.negative_prompt is None and is_set("true_cfg_scale"):
            text = "true_cfg_scale has no effect without a negative prompt"
            found.append(RequestWarning("no_effect", "true_cfg_scale", text))
    return [*found, *_methods_without_effect(state, defaults)]


def _methods_without_effect(state: RequestState, defaults: Defaults) -> list[RequestWarning]:
    """Warnings on the parameters of GUIDANCE_PARAMETERS that are set in vain."""
    usual = {n: getattr(defaults, n, PARAMETERS[n].default) for n in GUIDANCE_PARAMETERS}
    given = [name for name, value in usual.items() if getattr(state.params, name) != value]
    if len(state.conditioning) == 1:
        return [
            RequestWarning("no_effect", name, f"{name} has no effect without guidance")
            for name in given
        ]
    method, found = state.params.guidance_method, []
    for name in given:
        needed = "apg" if name in OF_APG else "cfg_zero" if name == "zero_init_steps" else method
        if method != needed:
            found.append(RequestWarning.no_effect(name, f"it is for guidance_method={needed}"))
    return found
