"""The denoiser, trained together with the text encoders by flow matching (Lipman et al., 2022)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from captions import EMPTY, Captions, Scene, Thing
from diffusers import FluxTransformer2DModel
from drawing import NATIVE, SIZES
from text import LENGTH, POOLED, WIDTH, Reader, is_matrix
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from trainer import Rates, device
from words import encode

CHANNELS = 64
"""Of one token: 2 x 2 positions of 16 channels."""
LENGTHS = {LENGTH: 0.83, 32: 0.1, 64: 0.04, 128: 0.02, 512: 0.01}
"""Padded lengths of the text, and how often: the denoiser attends to the padding, too."""
USUAL_SHARE = 0.85
"""Of the time, at the native size and the shortest length alone; the others are quickly learned."""
TOKENS = 52
"""Of picture and text in the usual batch: longer ones hold fewer samples."""
MISREAD = 0.1
"""Weight of the text encoders' own task."""
UNIFORM = 0.25
"""Share of the noise levels that is uniform; the rest is logit-normal (Esser et al., 2024)."""


def make_transformer() -> FluxTransformer2DModel:
    """With random weights; every modulation and the last projection begin at zero."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=POOLED,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (name == "proj_out" or "norm" in name):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def positions(height: int, width: int) -> Tensor:
    """Of the picture's tokens, in the order of its rows: [tokens, 3]."""
    rows, columns = torch.meshgrid(
        torch.arange(height // 16), torch.arange(width // 16), indexing="ij"
    )
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()


class Painter(Reader):
    """Text encoders and denoiser."""

    def __init__(self, concepts: Sequence[str], colors: Sequence[str]) -> None:
        super().__init__(concepts, colors)
        self.transformer = make_transformer()


class Shelf(NamedTuple):
    """Scenes of one size, and the latents of their pictures, [n, tokens, 64]."""

    scenes: list[Scene]
    latents: np.ndarray

    @classmethod
    def read(cls, folder: Path, height: int, width: int) -> Shelf:
        stem = f"{height}x{width}"
        scenes = [scene_of(line) for line in (folder / f"{stem}.jsonl").read_text().splitlines()]
        return cls(scenes, np.load(folder / f"{stem}.npy", mmap_mode="r"))


def scene_of(line: str) -> Scene:
    """A scene as it was written."""
    things, *rest = json.loads(line)
    return Scene(tuple(Thing(*thing) for thing in things), *rest)


class DenoiserStage:
    """Trains on scenes whose latents lie in `folder`."""

    name = "denoiser"
    rates = Rates(muon=2.1e-3, adam=1.3e-3, decay=0.01, ema=0.998)

    def __init__(
        self,
        painter: Painter,
        folder: Path,
        captions: Captions,
        tokenizer: Tokenizer,
        batch: int,
        *,
        compiled: bool,
    ) -> None:
        self.module: nn.Module = painter
        self._painter = painter
        self._shelves = {size: Shelf.read(folder, *size) for size in SIZES}
        self._captions = captions
        self._tokenizer = tokenizer
        self._batch = batch
        self._usual: Any = painter.transformer
        if compiled:
            self._usual = torch.compile(painter.transformer, dynamic=False)

    def by_muon(self, name: str, parameter: nn.Parameter) -> bool:
        outer = ("x_embedder", "context_embedder", "proj_out", "time_text_embed", ".norm")
        if name.startswith("transformer.") and any(part in name for part in outer):
            # proj_out of a block is a matrix like the others.
            return ".proj_out." in name and "_blocks." in name
        return is_matrix(name, parameter)

    def loss(self, step: int, share: float, rng: np.random.Generator) -> tuple[Tensor, int]:
        height, width, length = _shape(np.random.default_rng([7, step]), share)
        shelf = self._shelves[height, width]
        tokens = shelf.latents.shape[1] + length
        count = max(1, self._batch * TOKENS // tokens)
        chosen = np.sort(rng.integers(len(shelf.scenes), size=count))
        clean = torch.from_numpy(shelf.latents[chosen]).to(device()).float()
        scenes = [shelf.scenes[i] for i in chosen]
        said = [self._captions.draw(scene, rng, empty=EMPTY) for scene in scenes]
        ids = torch.tensor(encode(self._tokenizer, said, length), device=device())
        levels = _levels(count, rng).to(device())
        noise = torch.randn_like(clean)
        noised = clean + levels[:, None, None] * (noise - clean)
        usual = (height, width) == NATIVE and length == LENGTH
        transformer = self._usual if usual else self._painter.transformer
        # Without AMX a CPU multiplies faster in float32.
        with torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda"):
            pooled, states = self._painter(ids)
            velocity = transformer(
                hidden_states=noised,
                encoder_hidden_states=states,
                pooled_projections=pooled,
                timestep=levels,
                img_ids=positions(height, width).to(device()),
                txt_ids=torch.zeros(length, 3, device=device()),
                return_dict=False,
            )[0]
        flow = functional.mse_loss(velocity.float(), noise - clean)
        told = [i for i, text in enumerate(said) if text]
        if not told:
            return flow, count
        misread = self._painter.misread(
            pooled[told].float(), states[told].float(), ids[told], [scenes[i] for i in told]
        )
        return flow + MISREAD * misread, count


def _shape(rng: np.random.Generator, share: float) -> tuple[int, int, int]:
    """Height, width and text length of a batch. Only the usual size has unusual texts."""
    if share < USUAL_SHARE:
        return *NATIVE, LENGTH
    sizes = list(SIZES)
    height, width = sizes[rng.choice(len(sizes), p=list(SIZES.values()))]
    if (height, width) != NATIVE:
        return height, width, LENGTH
    return height, width, int(rng.choice(list(LENGTHS), p=list(LENGTHS.values())))


def _levels(count: int, rng: np.random.Generator) -> Tensor:
    """Noise levels in (0, 1), spread evenly over their distribution."""
    even = (rng.permutation(count) + rng.random(count)) / count
    normal = torch.special.ndtri(torch.from_numpy(even).clamp(1e-6, 1 - 1e-6))
    levels = torch.sigmoid(normal)
    uniform = torch.from_numpy(rng.random(count) < UNIFORM)
    return torch.where(uniform, torch.from_numpy(rng.random(count)), levels).float()
