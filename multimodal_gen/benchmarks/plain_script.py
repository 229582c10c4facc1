"""A minimal diffusers script without this project: one image, then exit."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import torch
from diffusers import DiffusionPipeline


def main() -> None:
    folder, device, dtype, prompt, seed, settings, path = sys.argv[1:]
    kind: Any = DiffusionPipeline
    pipeline = kind.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True).to(
        device
    )
    generator = torch.Generator("cpu").manual_seed(int(seed))
    keywords = msgspec.json.decode(settings)
    pipeline(prompt, generator=generator, **keywords).images[0].save(path)


if __name__ == "__main__":
    main()
