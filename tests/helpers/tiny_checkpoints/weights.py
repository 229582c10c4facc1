"""Random weights under which every input of a model visibly matters.

Library defaults (std 0.02, zero-initialised gates) make a random model nearly constant: prompt,
timestep and guidance would change nothing, and a parity test on it would prove nothing.
"""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import nn

# What departs from unit gain, by a part of the parameter's name.
GAINS = {
    "decoder.conv_out": 0.6,  # keeps most pixels inside [-1, 1]: clipping hides differences
    "vocoder.conv_out": 0.1,  # the same for samples of sound
    "bwe_generator.conv_out": 0.1,
    "SelfAttention.q": 0.3,  # T5 has no 1/sqrt(d) on its logits and would saturate
    "attn2.to_out": 2.0,  # a short prompt is a small part of what cross-attention averages
    "attn2.norm_k": 3.0,
    "attn.add_v_proj": 8.0,  # text is a small part of what joint attention averages
}


def fill(
    module: nn.Module,
    component: str,
    seed: int,
    dtype: torch.dtype,
    gains: Mapping[str, float] = GAINS,
) -> None:
    """Draw each parameter of `module` in float32 from its name alone, and keep it in `dtype`."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=_generator(f"{seed}/{component}/{name}"))
        weight = noise if id(parameter) in embeddings else _scaled(noise, name, gains)
        parameter.data = weight.to(dtype)


def _generator(key: str) -> torch.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _scaled(noise: torch.Tensor, name: str, gains: Mapping[str, float]) -> torch.Tensor:
    gain = next((gain for part, gain in gains.items() if part in name), 1.0)
    if name.endswith("bias"):
        return 0.1 * noise
    if noise.dim() <= 1 or name.endswith("gamma"):  # the weight of a norm
        return gain * (1 + 0.1 * noise)
    return noise * (gain / math.sqrt(noise[0].numel()))  # over the root of the fan-in
