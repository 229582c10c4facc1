"""Decodes one request in bands, a chunk at a time, over all ranks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from multimodal_gen.runtime.distributed.collectives import receive, send
from multimodal_gen.runtime.models.vaes.bands.banded_decoder import BandedDecoder
from multimodal_gen.runtime.models.vaes.bands.exchange import LostBands
from multimodal_gen.runtime.models.vaes.pixels import to_uint8


class BandRun:
    """In each unit every rank decodes its band of a chunk; then rank 0 collects them.

    Ranks wait for one another. One that fails goes on with shapes alone, and sends NaN.
    """

    def __init__(self, decoder: BandedDecoder, latents: Tensor, options: Mapping[str, Any]) -> None:
        """`latents` are the denoiser's, and `options` arguments of the VAE."""
        self.failure: Exception | None = None
        """The first error on this rank."""
        self._bands = decoder.bands
        self._decoder = decoder
        self._vae = decoder.vae
        self._lost: LostBands | None = None
        self._rows = decoder.rows(latents.shape[-2])
        self._latents = latents
        self._options = options
        self._carry: Any = None
        self._unit = 0

    def advance(
        self, measure: Callable[[Tensor], None], finish: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Do the next unit. Returns its frames, [F, H, W, 3] uint8.

        Only rank 0 has frames; there, `measure` is given all pixels, and `finish` all frames.
        """
        chunk, carry = self._unit, self._carry
        self._unit += 1
        self._bands.start(self._rows)
        if self._lost is not None:
            self._lost.start(self._rows)
        elif (decoded := self._tried(lambda: self._decoded(chunk))) is not None:
            return self._shown(self._collected(decoded), measure, finish)
        if self._lost is None:
            self._lose(carry)
        assert self._lost is not None
        self._collected(self._lost.lost(self._decoded(chunk)))
        return []

    def _tried(self, work: Callable[[], Tensor]) -> Tensor | None:
        try:
            return work()
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the memory of the failed try
            self.failure = self.failure or error
            return None

    def _lose(self, carry: Any) -> None:
        """Go on without values, from the state before this chunk."""
        self._vae, self._lost = self._decoder.lost()
        self._lost.start(self._rows)
        self._latents = self._latents.to("meta")
        self._carry = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), carry)

    def _decoded(self, chunk: int) -> Tensor:
        """Decode a chunk of this rank's band."""
        share = self._bands.shares[self._bands.rank]
        latents = self._vae.module_latents(self._latents, **self._options)
        band = latents[..., share.start : share.stop, :]
        decoded, self._carry = self._vae.decode_tile(band, chunk, self._carry, **self._options)
        return decoded

    def _collected(self, own: Tensor) -> Sequence[Tensor]:
        """On rank 0, the bands of all."""
        bands = self._bands
        if bands.rank:
            send(own, 0)
            return ()
        *outer, rows, width = own.shape
        others = range(1, len(bands.shares))
        shapes = [(*outer, bands.length(rows, rank), width) for rank in others]
        received = [
            receive(own.new_empty(shape), rank) for rank, shape in zip(others, shapes, strict=True)
        ]
        return [own, *received]

    def _shown(
        self,
        bands: Sequence[Tensor],
        measure: Callable[[Tensor], None],
        finish: Callable[[Tensor], Tensor],
    ) -> list[Tensor]:
        if not bands:
            return []

        def shown() -> Tensor:
            pixels = self._vae.finished(torch.cat([*bands], dim=-2))
            measure(pixels)
            return finish(to_uint8(pixels))

        frames = self._tried(shown)
        return [] if frames is None else [frames]
