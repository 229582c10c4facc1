"""Tiles of a VAE that a library's pipeline calls by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.models.vaes.image import image_values
from multimodal_gen.runtime.pipelines.latents.layout import size_of

_IN_TILES_ONLY = ("AutoencoderKLAllegro",)
_USUAL_WIDTHS = (128, 256)
"""Channels of the last levels of most decoders."""


class LibraryVAE:
    """Turns the module's own tiling on for requests that may not fit into `room` without."""

    def __init__(self, module: Any | None) -> None:
        self._module = module
        self.room: int | None = None
        """Bytes of activations that a decode may take; None: any number."""

    @contextmanager
    def tiled(self, params: SamplingParams) -> Iterator[None]:
        """Context in which the library decodes a request of these parameters, in tiles or not."""
        module = self._module
        if not hasattr(module, "use_tiling"):
            yield
            return
        assert module is not None
        before = module.use_tiling
        module.use_tiling = before or self._needs_tiles(params)
        try:
            yield
        finally:
            module.use_tiling = before

    def _needs_tiles(self, params: SamplingParams) -> bool:
        if type(self._module).__name__ in _IN_TILES_ONLY:
            return True
        return self.room is not None and self._decode_bytes(params) > self.room

    def _decode_bytes(self, params: SamplingParams) -> int:
        """A guess from the widths of the decoder. Frames count as if all were decoded at once."""
        assert self._module is not None
        config, (height, width) = self._module.config, size_of(params)
        names = ("decoder_block_out_channels", "block_out_channels")
        widths = next((config[name] for name in names if config.get(name)), _USUAL_WIDTHS)
        pixels = height * width * (params.num_frames or 1)
        return int(image_values(widths) * pixels * self._module.dtype.itemsize)
