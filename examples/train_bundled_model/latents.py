"""Scenes drawn and encoded once, so that the denoiser's training needs no autoencoder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from drawing import NATIVE, SIZES, Artist
from torch import Tensor
from trainer import device

BATCH = 16


def measure(vae: AutoencoderKL, pool: Path, count: int = 512) -> tuple[float, float]:
    """Shift and scaling factor of the autoencoder's latents, from pictures of `pool`."""
    pictures = np.load(pool, mmap_mode="r")
    latents = torch.cat(
        [_encode(vae, np.asarray(pictures[i : i + BATCH])) for i in range(0, count, BATCH)]
    )
    return float(latents.mean()), 1 / float(latents.std())


def write(
    vae: AutoencoderKL, artist: Artist, folder: Path, count: int, rank: int, world: int
) -> None:
    """This worker's part of `count` scenes over all sizes: `*.{rank}.npy` and `*.{rank}.jsonl`."""
    for number, ((height, width), share) in enumerate(SIZES.items()):
        rng = np.random.default_rng([11, number, rank])
        mine = max(2, int(count * share / world))
        drawn = [artist.imagine(height, width, rng) for _ in range(mine)]
        encoded = []
        for start in range(0, mine, BATCH):
            part = drawn[start : start + BATCH]
            pictures = np.stack([artist.paint(each, height, width) for each in part])
            latents = (_encode(vae, pictures) - vae.config.shift_factor) * vae.config.scaling_factor
            encoded.append(packed(latents).half().cpu().numpy())
            if rank == 0 and (height, width) == NATIVE and start % 1600 == 0:
                print(f"latents: {start * world} of {mine * world}", file=sys.stderr, flush=True)
        stem = f"{height}x{width}.{rank}"
        np.save(folder / f"{stem}.npy", np.concatenate(encoded))
        lines = "".join(json.dumps(each.scene) + "\n" for each in drawn)
        (folder / f"{stem}.jsonl").write_text(lines)


def join(folder: Path, world: int) -> None:
    """Put the parts of all workers together."""
    for height, width in SIZES:
        stem = f"{height}x{width}"
        parts = [folder / f"{stem}.{rank}.npy" for rank in range(world)]
        np.save(folder / f"{stem}.npy", np.concatenate([np.load(part) for part in parts]))
        lines = [(folder / f"{stem}.{rank}.jsonl").read_text() for rank in range(world)]
        (folder / f"{stem}.jsonl").write_text("".join(lines))
        for rank in range(world):
            (folder / f"{stem}.{rank}.npy").unlink()
            (folder / f"{stem}.{rank}.jsonl").unlink()


def packed(latents: Tensor) -> Tensor:
    """[B, 16, H, W] as FLUX's tokens, [B, H/2 * W/2, 64]: 2 x 2 positions, channel first."""
    b, c, h, w = latents.shape
    tokens = latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(b, h // 2 * (w // 2), c * 4)


@torch.no_grad()
def _encode(vae: AutoencoderKL, pictures: np.ndarray) -> Tensor:
    pixels = torch.tensor(pictures).to(device()).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents: Tensor = vae.encode(pixels).latent_dist.mean
    return latents
