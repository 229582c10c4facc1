"""Denoiser input: one row per request and guidance branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.controls.control_rows import ControlRows
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState

_TEXT_BUCKET = 64


@dataclass(frozen=True)
class Rows:
    """One evaluation's batch on this rank; R rows, one per (request, branch)."""

    latents: Tensor
    """[R, ...], scaled by the solvers."""
    timesteps: Tensor
    """[R], as given by the solvers."""
    conditioning: Conditioning
    """Each tensor [R, ...]."""
    states: Sequence[RequestState]
    """R states: the request of each row."""
    lora: LoraRows | None = None
    """LoRA terms per row."""
    controls: ControlRows | None = None
    """Controls per row."""

    @property
    def params(self) -> list[SamplingParams]:
        return [state.params for state in self.states]

    @contextmanager
    def controlled(
        self, tensors: Mapping[str, Any], static: Mapping[str, Any] | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the denoiser's arguments with what the rows' controls add to them, for an
        evaluation inside the context."""
        if self.controls is None:
            yield tensors
            return
        with self.controls.applied(tensors, static or {}, self.lora) as controlled:
            yield controlled


class RefinedTexts:
    """Results that a transformer makes of texts alone: kept as long as the batch of these."""

    def __init__(self) -> None:
        self._kept: MutableMapping[Tensor, tuple[LoraRows | None, Tensor]] = (
            WeakTensorKeyDictionary()
        )

    def of(self, states: Tensor, lora: LoraRows | None, make: Callable[[], Tensor]) -> Tensor:
        """Result of `make` for the joined `states` of texts, anew only where these or the rows'
        LoRAs change."""
        made_with, text = self._kept.get(states, (None, states))
        if text is states or made_with is not lora:
            text = make()
            self._kept[states] = (lora, text)
        return text


def join(rows: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors [1, ...] to [R, ...]; timesteps of different dtypes are promoted."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))


def join_rows(branches: Sequence[Conditioning]) -> Conditioning:
    """Concatenate conditioning of equal shapes, row by row."""
    names = branches[0] if branches else ()
    return {name: join([branch[name] for branch in branches]) for name in names}


def join_padded(
    branches: Sequence[Conditioning], names: Sequence[str], *, to_bucket: bool = False
) -> Conditioning:
    """Concatenate conditioning whose tensors `names`, each [1, S, ...], differ in S, with padding.

    They are padded to the longest, or `to_bucket`: then texts of one bucket have one shape.
    `lengths`, int32 [R], is the number of valid tokens per row; it is absent if all are equal and
    need no padding.
    """
    lengths = [branch[names[0]].shape[1] for branch in branches]
    longest = max(lengths, default=0)
    if not branches or (len(set(lengths)) == 1 and not to_bucket):
        return join_rows(branches)
    longest = text_bucket(longest) if to_bucket else longest
    padded = [
        {**branch, **{name: _padded(branch[name], longest) for name in names}}
        for branch in branches
    ]
    device = branches[0][names[0]].device
    return {**join_rows(padded), "lengths": tensor_of(lengths, device, torch.int32)}


def text_bucket(length: int) -> int:
    """Bucket of a text length. Texts of one bucket may share a batch, with less padding than its
    size."""
    return -(-length // _TEXT_BUCKET) * _TEXT_BUCKET


def _padded(tensor: Tensor, length: int) -> Tensor:
    return F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, length - tensor.shape[1]))
