"""torch's choice of a fused kernel for the current device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from multimodal_gen.runtime.distributed.local_attention import Attention, PartialOutput
from multimodal_gen.runtime.layers.attention.attention import key_mask, without_empty_rows
from multimodal_gen.runtime.layers.attention.backends import cudnn, efficient, flash, math

_aten = torch.ops.aten
_KERNELS: dict[int, Attention] = {
    SDPBackend.FLASH_ATTENTION.value: flash.attention,
    SDPBackend.EFFICIENT_ATTENTION.value: efficient.attention,
    SDPBackend.CUDNN_ATTENTION.value: cudnn.attention,
}
_LONG = 256
"""Keys from which rows one by one, without a mask, are no slower on a CPU than all at once."""


class SdpaAttention:
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            return _torch_attention(q, k, v)
        if q.device.type == "cuda":
            return _kernel(q, k, v)(q, k, v, lengths)
        if _apart(k):
            rows = zip(*(x.split(1) for x in (q, k, v)), lengths.tolist(), strict=True)
            return torch.cat([_torch_attention(q, k[:, :n], v[:, :n]) for q, k, v, n in rows])
        return _torch_attention(q, k, v, key_mask(lengths, k.shape[1]))

    def partial(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> PartialOutput:
        """`scaled_dot_product_attention` keeps the log-sum-exp to itself, so the kernel that torch
        would choose is called by its name."""
        kernel = _kernel(q, k, v)
        if q.device.type != "cpu" or kernel is math.attention:
            return kernel.partial(q, k, v, lengths)
        mask = None
        if lengths is not None:
            mask = q.new_zeros(len(q), 1, 1, k.shape[1])
            mask.masked_fill_(~key_mask(lengths, k.shape[1]), float("-inf"))
        by_head = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # [B, H, S, D]
        found = _aten._scaled_dot_product_flash_attention_for_cpu(*by_head, attn_mask=mask)
        out, log_sum_exp = (x.transpose(1, 2) for x in found)
        return without_empty_rows(PartialOutput(out, log_sum_exp), lengths)


attention = SdpaAttention()


def _torch_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, S, D]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def _kernel(q: Tensor, k: Tensor, v: Tensor) -> Attention:
    """The kernel that torch would choose. None of these needs a mask that torch knows of."""
    by_head = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return _KERNELS.get(_aten._fused_sdp_choice(*by_head), math.attention)


def _apart(k: Tensor) -> bool:
    """Tell whether to attend to rows one by one: lengths of the CPU are numbers already."""
    long = k.device.type == "cpu" and k.shape[1] >= _LONG
    return long and not torch.compiler.is_compiling()
