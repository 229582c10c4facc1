"""Loads models that enlarge pictures, through spandrel: the extra `upscale`."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.checkpoints.adapter_folder import AdapterFile
from multimodal_gen.checkpoints.upscaler.folder import UpscalerFolder
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.distributed.first_rank import make_sharing
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.tensors.safetensors_file import open_safetensors
from multimodal_gen.runtime.models.latent_upsampler import MARK, LatentUpsampler
from multimodal_gen.runtime.models.upscaler import Upscaler

OWN = ""
"""Stands for the model that the checkpoint carries."""
_CARRIED = "latent_upsampler"
MOST_LOADED = 2
_PURPOSES = ("SR", "Restoration")


class Upscalers:
    """The operator's models, of which the most recently used ones stay loaded.

    The first rank reads files and gives their tensors to the others.
    """

    def __init__(self, context: RankContext) -> None:
        self._context = context
        self._shared = make_sharing(context.mesh, context.device)
        self._folder: UpscalerFolder | None = None
        self._checkpoint: UpscalerFolder | None = None
        """The checkpoint's folder, if it carries a model that enlarges its latents."""
        self._loaded: OrderedDict[str, Upscaler | LatentUpsampler] = OrderedDict()
        self._stamps: dict[str, str] = {}

    @property
    def available(self) -> bool:
        return self._folder is not None

    def open(self, folder: str) -> None:
        """Let requests name the files of a folder. Raises InvalidRequest if there is none."""
        self._folder = UpscalerFolder(Path(folder))

    @property
    def carried(self) -> bool:
        """True if the checkpoint has a model of its own, which requests need not name."""
        return self._checkpoint is not None

    def look_into(self, checkpoint: Path) -> None:
        """Use the model that lies beside the components of a checkpoint, if there is one."""
        folder = UpscalerFolder(checkpoint)
        self._checkpoint = folder if _CARRIED in folder.names() else None

    def load(self, name: str) -> Upscaler | LatentUpsampler:
        """Return the model of this name, or the checkpoint's for `OWN`. Collective. Raises
        InvalidRequest on all ranks alike."""
        tensors = self._shared(lambda: {"": self._changed(name)})[""]
        upscaler = self._loaded.pop(name, None)
        if tensors or upscaler is None:
            upscaler = self._built(name, tensors)
        self._loaded[name] = upscaler
        while len(self._loaded) > MOST_LOADED:
            self._loaded.popitem(last=False)
        return upscaler

    def _changed(self, name: str) -> dict[str, Tensor]:
        """Tensors of the file, unless the model of it is loaded."""
        file = self._found(name)
        try:
            stamp = file.stamp
            if name in self._loaded and self._stamps.get(name) == stamp:
                return {}
            with open_safetensors([file.weights], name) as stored:
                read = {key: each.rows(0, (*each.shape, 1)[0]) for key, each in stored.items()}
        except OSError as error:
            raise InvalidRequest("upscale", name, f"can't be read: {error.strerror}") from error
        except InvalidCheckpoint as error:
            raise InvalidRequest("upscale", name, error.message) from error
        self._stamps[name] = stamp
        return {key: each.to(self._context.device) for key, each in read.items()}

    def _found(self, name: str) -> AdapterFile:
        if name == OWN:
            if self._checkpoint is None:
                raise InvalidRequest("upscale", name, "must name a model that enlarges latents")
            return self._checkpoint.find(_CARRIED)
        if self._folder is None:
            raise InvalidRequest("upscale", name, "the server was started without upscaler_dir")
        return self._folder.find(name)

    def _built(self, name: str, tensors: dict[str, Tensor]) -> Upscaler | LatentUpsampler:
        if MARK in tensors:
            with _naming(name):
                return LatentUpsampler.of(name, tensors, self._context.dtype)
        descriptor = _described(name, tensors)
        dtype = self._context.dtype
        halves = {
            torch.bfloat16: descriptor.supports_bfloat16,
            torch.float16: descriptor.supports_half,
        }
        dtype = dtype if halves.get(dtype, True) else torch.float32
        descriptor.model.requires_grad_(requires_grad=False)
        return Upscaler(name, descriptor.to(device=self._context.device, dtype=dtype).eval())


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Have what a library does not understand of a file told of the file."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise InvalidRequest("upscale", name, f"can't be loaded: {error!s:.300}") from error


def _described(name: str, tensors: dict[str, Tensor]) -> Any:
    """A model built from tensors alone, as spandrel's loader of files would unpickle some."""
    spandrel = _spandrel(name)
    try:
        with _naming(name):
            descriptor = spandrel.MAIN_REGISTRY.load(tensors)
    except spandrel.UnsupportedModelError as error:
        allowed = "is not a model that spandrel knows"
        raise InvalidRequest("upscale", name, allowed) from error
    channels = getattr(descriptor, "input_channels", 0), getattr(descriptor, "output_channels", 0)
    if descriptor.purpose not in _PURPOSES or channels != (3, 3):
        allowed = f"must make RGB pictures of RGB pictures; it is for {descriptor.purpose}"
        raise InvalidRequest("upscale", name, allowed)
    return descriptor


def _spandrel(given: str) -> Any:
    """Raises InvalidRequest if the extra, or what it needs, is missing."""
    try:
        return importlib.import_module("spandrel")
    except (ImportError, RuntimeError) as error:  # torchvision of another build than torch
        allowed = (
            f"needs an extra of the server: pip install 'multimodal-gen[upscale]' ({error!s:.100})"
        )
        raise InvalidRequest("upscale", given, allowed) from error
