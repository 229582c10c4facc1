"""Prints, in JSON, what waits in a product with GGUF's blocks on the pretended device, and how far
it is from that on a CPU, by type."""

from __future__ import annotations

import json
from typing import Any

import gguf
import numpy as np
import pretend_device
import torch

ROWS, COLUMNS = 12, 512


def seen(device: pretend_device.PretendDevice, kind: str) -> dict[str, Any]:
    from multimodal_gen.runtime.layers.quantized.gguf.storage import GgufStorage

    per_block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    shape = (ROWS, COLUMNS // per_block * size)
    blocks = np.random.default_rng(0).integers(0, 40, shape, np.uint8)
    weight, x = GgufStorage(kind, torch.from_numpy(blocks), COLUMNS), torch.randn(3, COLUMNS)
    wanted = weight.product(x).double()
    weight, x = weight.to(device.device), x.to(device.device)
    weight.product(x)  # Tables are moved once.
    with device.watching() as watched:
        found = weight.product(x)
    apart = float((found.cpu() - wanted).norm() / wanted.norm())
    return {"waits": watched.waits, "apart": apart}


if __name__ == "__main__":
    pretend_device.install()
    from multimodal_gen.runtime.layers.quantized.gguf.blocks import FORMS

    with pretend_device.PretendDevice() as device:
        print(json.dumps({kind: seen(device, kind) for kind in FORMS}))
