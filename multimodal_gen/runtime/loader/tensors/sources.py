"""Tensors of files as sources of a module's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.columns import cut_columns
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.layers.take import Segment
from multimodal_gen.runtime.loader.tensors.shares import columns_of, rows_of
from multimodal_gen.runtime.loader.tensors.stored import Stored, assemble, storages


@dataclass(frozen=True)
class StoredSources:
    """Tensors of files that make up one parameter, by name, in order along dim 0."""

    tensors: Mapping[str, Stored]
    keep_narrow: bool = False

    @property
    def segments(self) -> list[Segment]:
        segments: list[Segment] = []
        start = 0
        for name, tensor in self.tensors.items():
            segments.append(Segment(name, start, tensor.shape[0] if tensor.shape else 1))
            start += segments[-1].rows
        return segments

    def rows(self, own: Sequence[range]) -> StoredSources:
        tensors: dict[str, Stored] = {}
        for (name, start, _), tensor in zip(self.segments, self.tensors.values(), strict=True):
            here = [range(each.start - start, each.stop - start) for each in own]
            if part := rows_of(tensor, here):
                tensors[name] = part
        return replace(self, tensors=tensors)

    def columns(self, own: Sequence[range]) -> StoredSources:
        tensors = {name: columns_of(tensor, own) for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors)

    def read(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        return assemble([*self.tensors.values()], shape, dtype, device)

    def storages(
        self, shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> list[Storage]:
        return [each.to(device) for each in self._kept(shape, dtype)]

    def column_storages(
        self, own: Sequence[range], shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> tuple[list[Storage], Sequence[range]]:
        if not (whole := self._kept(shape, dtype)):
            return [], own
        found, held = cut_columns(whole, own)
        return [each.to(device) for each in found], held

    def _kept(self, shape: torch.Size, dtype: torch.dtype) -> list[Storage]:
        """Storages in the files' pages."""
        return storages([*self.tensors.values()], shape, dtype, keep_narrow=self.keep_narrow)
