"""torch's fused kernel for the current device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from multimodal_gen.runtime.distributed.local_attention import PartialOutput
from multimodal_gen.runtime.layers.attention.attention import key_mask, without_empty_rows
from multimodal_gen.runtime.layers.attention.backends import math

_aten = torch.ops.aten
_MASK_ALIGNMENT = 16
"""Elements to which the memory-efficient kernel wants a mask's rows aligned."""


class SdpaAttention:
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else key_mask(lengths, k.shape[1])
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, S, D]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    def partial(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> PartialOutput:
        """`scaled_dot_product_attention` keeps the log-sum-exp to itself, so the kernel that torch
        would choose is called by its name."""
        mask = None if lengths is None else _additive_mask(q, k, lengths)
        by_head = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # [B, H, S, D]
        kernel = _aten._fused_sdp_choice(*by_head, mask)
        if kernel == SDPBackend.MATH.value:
            return math.attention.partial(q, k, v, lengths)
        out, log_sum_exp = _run(kernel, *by_head, mask)
        # The memory-efficient kernel pads the queries; cuDNN's result may have a last size of 1.
        log_sum_exp = log_sum_exp.flatten(2)[:, :, : q.shape[1]]
        found = PartialOutput(out.transpose(1, 2), log_sum_exp.transpose(1, 2))
        return without_empty_rows(found, lengths)


attention = SdpaAttention()


def _run(
    kernel: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of one of torch's kernels."""
    if q.device.type == "cpu":
        found = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
    elif kernel == SDPBackend.FLASH_ATTENTION.value:  # never chosen with a mask
        found = _aten._scaled_dot_product_flash_attention(q, k, v)
    elif kernel == SDPBackend.CUDNN_ATTENTION.value:
        found = _aten._scaled_dot_product_cudnn_attention(q, k, v, mask, True)
    else:
        found = _aten._scaled_dot_product_efficient_attention(q, k, v, mask, True)
    out, log_sum_exp = found[:2]
    return out, log_sum_exp


def _additive_mask(q: Tensor, k: Tensor, lengths: Tensor) -> Tensor:
    """0 for valid keys, minus infinity for others, [B, H, S_q, S_k] with rows that are aligned."""
    keys = k.shape[1]
    padded = -(-keys // _MASK_ALIGNMENT) * _MASK_ALIGNMENT
    mask = q.new_zeros(len(q), 1, 1, padded)
    mask.masked_fill_(~key_mask(lengths, padded), float("-inf"))
    return mask[..., :keys].expand(-1, q.shape[2], q.shape[1], -1)
