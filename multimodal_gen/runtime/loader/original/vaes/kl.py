"""VAEs after CompVis' latent diffusion: Stable Diffusion, FLUX, HunyuanVideo and CogVideoX."""

from __future__ import annotations

import re

from torch import Tensor

_ROOTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "bn.")
_BLOCK = re.compile(r"\.(down|up)\.(\d+)\.(?:block\.(\d+)|(?:down|up)sample)\.")
_MIDDLE_RESNET = re.compile(r"\.mid\.block_(\d)\.")
_UP = re.compile(r"decoder\.up\.(\d+)\.")
_ATTENTION = re.compile(r"(?:\.mid\.attn_1|\.mid_block\.attentions\.0)\.(\w+)\.")
_IN_ATTENTION = {
    "norm": "group_norm",
    **dict.fromkeys(("q", "query"), "to_q"),
    **dict.fromkeys(("k", "key"), "to_k"),
    **dict.fromkeys(("v", "value"), "to_v"),
    **dict.fromkeys(("proj_out", "proj_attn"), "to_out.0"),
}
"""The second of two names is diffusers' old one."""
_MOVED = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
"""Their names in FLUX.2."""


def kl_names(tensors: dict[str, Tensor], *, norm_out: str = "conv_norm_out") -> dict[str, Tensor]:
    """Convert names; what is left of training (losses, averages) is left out. `norm_out` is
    diffusers' name of the last norm."""
    blocks = 1 + max((int(n) for name in tensors for n in _UP.findall(name)), default=0)
    converted = {}
    for name, tensor in tensors.items():
        if not name.startswith(_ROOTS):
            continue
        for theirs, ours in _MOVED.items():
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        name = name.replace(".norm_out.", f".{norm_out}.").replace("nin_shortcut", "conv_shortcut")
        name = _MIDDLE_RESNET.sub(lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", name)
        name = _BLOCK.sub(lambda match: _block(match, blocks), name)
        if attention := _ATTENTION.search(name):
            part = _IN_ATTENTION.get(attention[1], attention[1])
            name = _ATTENTION.sub(f".mid_block.attentions.0.{part}.", name)
            tensor = tensor.reshape(len(tensor), -1) if tensor.dim() > 2 else tensor
        converted[name] = tensor
    return converted


def _block(match: re.Match[str], blocks: int) -> str:
    """Name within diffusers' blocks, which go up in the opposite order."""
    way, number, resnet = match.groups()
    block = blocks - 1 - int(number) if way == "up" else int(number)
    inner = f"{way}samplers.0" if resnet is None else f"resnets.{resnet}"
    return f".{way}_blocks.{block}.{inner}."
