"""Random controls for tiny checkpoints, as diffusers saves them, without an engine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
from tiny_checkpoints.weights import fill

from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.runtime.controls.control_rows import ControlUse
from multimodal_gen.runtime.pipelines.adapter_readers import control_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

_numbers = itertools.count()
EMBEDDING = (8, 8, 8, 8)
"""Channels of a ControlNet's first layers."""


def save_random(module: Any, folder: Path, seed: int = 0, scale: float = 1.0) -> Any:
    """Give all of the module's weights, which may be zeros, random values, and save it."""
    fill(module, folder.name, seed, torch.float32)
    module.eval().requires_grad_(False)
    module.save_pretrained(folder)
    return module


def edges(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture [height, width, 3] such as controls take: lines and areas."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    rows, columns = np.mgrid[:height, :width]
    lines = ((rows + columns) % 13 < 3)[..., None] * 255
    return np.where(columns[..., None] > width // 2, lines, noise).astype(np.uint8)


def networks(unet: Any) -> dict[str, Any]:
    """Networks of diffusers for a tiny UNet of Stable Diffusion."""
    is_xl = unet.config.addition_embed_type == "text_time"
    made: dict[str, Any] = {}
    for name in ("canny", "depth", "pooled"):
        made[name] = diffusers.ControlNetModel.from_unet(
            unet,
            conditioning_embedding_out_channels=EMBEDDING,
            controlnet_conditioning_channel_order="bgr" if name == "depth" else "rgb",
            load_weights_from_unet=False,
        )
        made[name].register_to_config(global_pool_conditions=name == "pooled")
    blocks = unet.config.block_out_channels
    if is_xl:
        made["union"] = diffusers.ControlNetUnionModel(
            **{
                name: value
                for name, value in made["canny"].config.items()
                if name not in ("mid_block_type", "conditioning_embedding_out_channels")
            },
            conditioning_embedding_out_channels=EMBEDDING,
            num_trans_channel=blocks[0],
            num_proj_channel=blocks[0],
            num_trans_head=8,
        )
    kind = {"adapter_type": "full_adapter_xl", "downscale_factor": 16} if is_xl else {}
    made["features"] = diffusers.T2IAdapter(
        channels=[*blocks, blocks[-1]][:4], num_res_blocks=1, **kind
    )
    if is_xl:
        made["small"] = diffusers.ControlNetModel.from_config(
            {
                **made["canny"].config,
                "down_block_types": ["DownBlock2D"] * len(blocks),
                "mid_block_type": "UNetMidBlock2D",
            }
        )
    else:
        made["grey"] = diffusers.T2IAdapter(
            1, list(blocks[:3]), num_res_blocks=1, adapter_type="light_adapter"
        )
    return made


class LoadedControls:
    """Loads controls of a folder into a pipeline, without an engine; each gets a key."""

    def __init__(self, pipeline: ComposedPipeline, folder: Path) -> None:
        self._pipeline = pipeline
        self._reader = control_reader(pipeline)
        self._folder = ControlFolder(folder)
        self._keys: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Of the controls in the folder."""
        return self._folder.names()

    def key(self, name: str) -> int:
        """Load a control, unless it is loaded."""
        if name not in self._keys:
            key = self._keys[name] = next(_numbers)
            self._pipeline.controls.add(key, self._reader.read(self._folder.find(name)))
        return self._keys[name]

    def control(self, name: str) -> Any:
        """A control of the folder, loaded."""
        return self._pipeline.controls._loaded[self.key(name)]

    def uses(self, choices: Any) -> tuple[ControlUse, ...]:
        """Uses of the controls of a request's parameters, in their order."""
        return tuple(
            ControlUse.of(self.key(each.name), each, f"control_{number}")
            for number, each in enumerate(choices, 1)
        )
