"""Pixels and sound of a pipeline's latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.vaes.bands.band_run import BandRun
from multimodal_gen.runtime.models.vaes.bands.banded_decoder import BandedDecoder
from multimodal_gen.runtime.models.vaes.pixels import to_uint8
from multimodal_gen.runtime.models.vaes.shared_decoding import SharedDecoding
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileGrid
from multimodal_gen.runtime.models.vaes.tiles.tile_run import TileRun
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.stages.request_state import RequestState

MAX_DECODED = 64
"""Maximum number of pictures in one call of a decoder."""


class DecodingPipeline:
    """The last phase: at once, in chunks of frames, or in tiles or bands that ranks share."""

    vae_class: ClassVar[type[VAE]]
    components: Mapping[str, Any]
    context: RankContext
    layout: LatentLayout

    @cached_property
    def vae(self) -> VAE:
        return self.vae_class(self.components["vae"])

    def limit_decoding(self, room: int) -> None:
        """Set the bytes of activations that encoding or decoding pixels may take at once. It is the
        same on all ranks; pixels depend on it where it makes them be decoded in tiles."""
        self.vae.room = room

    def decode_chunks(self, params: SamplingParams) -> int:
        """Number of units that decoding takes: chunks, or turns of tiles."""
        chunks, grid = self.vae.chunks(self.layout.frames(params)), self._grid(params)
        return chunks if grid is None else TileRun.units(grid, self._tile_ranks(params), chunks)

    def _grid(self, params: SamplingParams) -> TileGrid | None:
        """Tiles that a request is decoded in, if it is."""
        return self.vae.grid(*size_of(params), self.layout.frames(params))

    @cached_property
    def _banded(self) -> BandedDecoder | None:
        """Decodes in bands, if ranks do."""
        return BandedDecoder.of_rank(self.vae_class, self.components["vae"], self.context)

    def decoded_by_all(self, params: SamplingParams) -> bool:
        """True if requests of this size are decoded by all ranks, in tiles or in bands."""
        return self._grid(params) is not None or self._in_bands(params)

    def _in_bands(self, params: SamplingParams) -> bool:
        return self._banded is not None and self._banded.suits(*size_of(params))

    def decoded_at_once(self, params: SamplingParams) -> int:
        """Maximum number of requests of this size that are decoded in one call."""
        vae, frames = self.vae, self.layout.frames(params)
        in_pieces = self.decode_chunks(params) > 1 or self.decoded_by_all(params)
        if in_pieces or not vae.decodes_batches:
            return 1
        if vae.room is None:
            return MAX_DECODED
        return min(max(1, vae.room // vae.decode_bytes(*size_of(params), frames)), MAX_DECODED)

    def shared_decoding(self, state: RequestState) -> SharedDecoding | None:
        """Start decoding a request in tiles, if its size needs them, or in bands."""
        if not self.decoded_by_all(state.params):
            return None
        _, latents = state.running()
        latents, options = self.vae_latents([state], latents), self.decoding(state)
        grid = self._grid(state.params)
        if grid is None:
            assert self._banded is not None
            return BandRun(self._banded, latents, options)
        return TileRun(
            self.vae,
            grid,
            latents,
            self.context.mesh.rank,
            ranks=self._tile_ranks(state.params),
            chunks=self.vae.chunks(self.layout.frames(state.params)),
            options=options,
        )

    def _tile_ranks(self, params: SamplingParams) -> int:
        """Ranks that decode tiles at once: all, but on a CPU, whose memory they share, as many as
        take twice the room at most."""
        ranks = self.context.mesh.world_size
        if self.context.device.type != "cpu" or self.vae.room is None:
            return ranks
        tile = self.vae.tile_bytes(self.layout.frames(params))
        return max(1, min(ranks, 2 * self.vae.room // tile))

    def vae_latents(self, states: Sequence[RequestState], latents: Tensor) -> Tensor:
        """Convert latents of requests of one size to the VAE's layout."""
        return self.layout.unpack(latents, states[0].params)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        """Decode chunk `chunk` of `latents` [B, ...] to pixels [B * F, H, W, 3] uint8.

        B is 1 unless the requests, all of one size, are decoded together.
        """
        state = states[0]
        latents = self.vae_latents(states, latents)
        carry = state.carry if chunk else None
        decoded, state.carry = self.vae.decode(latents, chunk, carry, **self.decoding(state))
        for one, own in zip(states, decoded.chunk(len(states)), strict=True):
            one.measure(own, "decoding")
        return to_uint8(decoded)

    def decode_sound(self, state: RequestState) -> None:
        """Set `state.audio` and `state.audio_rate`, in families with sound: called on rank 0 once
        all pixels are decoded."""

    def decoding(self, state: RequestState) -> dict[str, Any]:
        """Keyword arguments of the VAE's `decode` for a request."""
        return {"seed": state.params.seed or 0}

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor | None:
        """Small image [h, w, 3] uint8 of the estimate of x0; None if not supported."""
        return self.vae.preview(self.layout.unpack(x0, params))
