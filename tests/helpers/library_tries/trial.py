"""One pipeline class of diffusers, made of tiny random components, and what is asked of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from tiny_checkpoints.build import name_as_published
from tiny_checkpoints.families import CHECKPOINTS, VARIANTS
from tiny_checkpoints.pictures import picture
from tiny_checkpoints.weights import fill

from multimodal_gen.configs.sampling_params import SamplingParams

SIZE = {"width": 64, "height": 64}
COMMON: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    **SIZE,
    "num_inference_steps": 2,
    "guidance_scale": 4.0,
    "seed": 3,
}
FRAMES = 9
"""Of input videos."""


@dataclass(frozen=True)
class Trial:
    """How to make a pipeline, and a request for it."""

    base: str | None = None
    """Tiny checkpoint whose components it has."""
    parts: Mapping[str, Callable[[], Any] | None] = field(default_factory=dict)
    """Components beside those of `base`, or in their place."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Entries of the configs of components of `base`, in place of their own."""
    scheduler: Mapping[str, Any] | None = None
    """In place of that of `base`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the constructor that are no components."""
    call: Mapping[str, Any] = field(default_factory=dict)
    """Changes to `COMMON`; None takes something out of it."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Names of input pictures in the library's call, with ours."""
    stock_call: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that only the library has to be told."""

    @property
    def request(self) -> SamplingParams:
        return SamplingParams(**self._asked)

    @property
    def inputs(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Pixels of its input pictures, by our names."""
        return {name: _pixels(name) for name in self.pictures.values()}

    @property
    def _asked(self) -> dict[str, Any]:
        merged = {**COMMON, **self.call}
        return {name: value for name, value in merged.items() if value is not None}

    def pipeline(self, name: str) -> Any:
        """Make the pipeline `name` with random weights."""
        kind = getattr(diffusers, name)
        known = inspect.signature(kind).parameters
        made = {part: make() for part, make in self.parts.items() if make is not None}
        base = {**self._base(), **made, **self.options}
        missing = [each for each in known if known[each].default is inspect.Parameter.empty]
        given = {each: part for each, part in base.items() if each in known}
        pipeline = kind(**{**dict.fromkeys(missing), **given})
        for component, module in pipeline.components.items():
            if isinstance(module, torch.nn.Module):
                fill(module.eval(), component, 0, torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _base(self) -> dict[str, Any]:
        found = {**CHECKPOINTS, **VARIANTS}[self.base] if self.base else None
        config = dict(self.scheduler or (found.scheduler if found else {}))
        scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
        parts = found.pipeline(scheduler, heads=4).components if found else {}
        for name, changes in self.configs.items():
            own = {k: v for k, v in parts[name].config.items() if not k.startswith("_")}
            parts[name] = type(parts[name])(**{**own, **changes})
        return {**parts, "scheduler": scheduler}

    def stock(self, pipeline: Any) -> npt.NDArray[np.uint8]:
        """Pixels [F, H, W, 3] of the library's own call."""
        known = inspect.signature(pipeline.__call__).parameters
        call = {name: value for name, value in self._asked.items() if name in known}
        shown = {theirs: _pil(_pixels(ours)) for theirs, ours in self.pictures.items()}
        generator = torch.Generator().manual_seed(self._asked["seed"])
        called = {**call, **shown, **self.stock_call}
        torch.manual_seed(self._asked["seed"])  # for what some draw without the generator
        with torch.inference_mode():
            output = pipeline(**called, generator=generator, output_type="np", return_dict=False)
        made = output[0] if isinstance(output, tuple) else output
        pixels = np.asarray(made)
        return (pixels.reshape(-1, *pixels.shape[-3:]) * 255).round().astype(np.uint8)


def save(pipeline: Any, folder: Path) -> Path:
    """Write the pipeline to `folder` in the layout of published checkpoints."""
    pipeline.save_pretrained(folder)
    name_as_published(folder / "model_index.json")
    return folder


def _pixels(name: str) -> npt.NDArray[np.uint8]:
    if name == "video":
        frames = [np.asarray(picture(64 + 4 * at, 64).crop((0, 0, 64, 64))) for at in range(FRAMES)]
        return np.stack(frames)
    if name == "mask":
        return np.asarray(picture(64, 64, "L"))
    turned = {"image": 0, "image_2": 1, "last_image": 2, "image_3": 3, "control_1": 1}[name]
    return np.ascontiguousarray(np.rot90(np.asarray(picture(64, 64)), turned))


def _pil(pixels: npt.NDArray[np.uint8]) -> PIL.Image.Image | list[PIL.Image.Image]:
    if pixels.ndim == 4:
        return [PIL.Image.fromarray(frame) for frame in pixels]
    return PIL.Image.fromarray(pixels)
