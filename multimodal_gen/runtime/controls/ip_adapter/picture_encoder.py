"""The image encoder beside the weights of an IP-Adapter."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from multimodal_gen.checkpoints.files import check_config, check_sizes, read_json, weight_files
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.loader.library_modules import LibraryModule
from multimodal_gen.runtime.loader.pretrained import quiet
from multimodal_gen.runtime.loader.tensors.safetensors_copy import held_tensors
from multimodal_gen.runtime.loader.tensors.stored import Stored

FOLDER = "image_encoder"
_CLASS = "CLIPVisionModelWithProjection"


class PictureEncoder:
    """CLIP's image encoder, with the library's usual preparation of pictures."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._side = side = module.config.image_size
        self._processor = quiet("transformers").CLIPImageProcessor(size=side, crop_size=side)

    @classmethod
    def load(cls, root: Path, dtype: torch.dtype, device: torch.device) -> PictureEncoder:
        """Load it from its folder in `root`, or return the one that another adapter has loaded of
        these files. Raises InvalidCheckpoint."""
        paths = weight_files(root, FOLDER, "model").paths
        stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
        key = (stamps, dtype, device)
        if (loaded := _loaded.get(key)) is None:
            stored: dict[str, Stored] = {}
            for path in paths:
                stored |= held_tensors(read_header(path))
            library = LibraryModule("transformers", _CLASS, encoder_config(root), FOLDER)
            loaded = _loaded[key] = cls(library.load(stored, dtype, device))
        return loaded

    def seen(self, picture: np.ndarray[Any, Any], *, states: bool) -> Tensor:
        """States [1, S, D] of the last layer but one of a picture [H, W, 3] uint8, or its embedding
        [1, D]."""
        prepared = self._processor(images=PIL.Image.fromarray(picture), return_tensors="pt")
        pixels = copied(prepared["pixel_values"], self.module.device, self.module.dtype)
        return self._output(pixels, states=states)

    def black(self, *, states: bool) -> Tensor:
        """The same of a black picture."""
        return self.seen(np.zeros((self._side, self._side, 3), np.uint8), states=states)

    def nothing(self, *, states: bool) -> Tensor:
        """The same without a picture: zeros, or the states of an input of zeros."""
        module = self.module
        if not states:
            return torch.zeros(1, module.config.projection_dim, device=module.device)
        pixels = torch.zeros(1, 3, self._side, self._side, device=module.device)
        return self._output(pixels.to(module.dtype), states=True)

    def _output(self, pixels: Tensor, *, states: bool) -> Tensor:
        output = self.module(pixels, output_hidden_states=states)
        found: Tensor = output.hidden_states[-2] if states else output.image_embeds
        return found


_loaded: WeakValueDictionary[Hashable, PictureEncoder] = WeakValueDictionary()
"""Encoders that adapters have."""


def encoder_config(root: Path) -> dict[str, Any]:
    """Read the encoder's config; of a model for text and pictures, the part that is for pictures.
    Raises InvalidCheckpoint."""
    name = f"{FOLDER}/config.json"
    config = check_config(read_json(root, name), name)
    own = config.get("vision_config")
    if isinstance(own, dict):
        config = {"projection_dim": config.get("projection_dim", 512), **own}
    check_sizes(config, name)
    return config
