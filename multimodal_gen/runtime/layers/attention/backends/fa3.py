"""FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608) for Hopper GPUs, from the wheel `fa3-fwd`,
which has its kernels for bfloat16. Imported at the first call."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor, int32

from multimodal_gen.runtime.layers.attention.attention import KernelAttention
from multimodal_gen.runtime.layers.attention.sites import HALVES, KernelLimits

_MODULE = "fa3_fwd_interface"

LIMITS = KernelLimits(
    majors=range(9, 10), dtypes=HALVES[:1], widest=256, module=_MODULE, extra="fa3"
)


def _fa3(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, *, scores: bool
) -> tuple[Tensor, Tensor]:
    library: Any = import_module(_MODULE)
    if lengths is None:
        out, log_sum_exp = library.flash_attn_func(q, k, v, return_attn_probs=True)
    else:  # rows of a cache are tokens in their places, of which the first are valid
        out, log_sum_exp, *_ = library.flash_attn_with_kvcache(
            q,
            k,
            v,
            cache_seqlens=lengths.to(int32),
            num_splits=1,
            return_softmax_lse=True,
        )
    return out, log_sum_exp.transpose(1, 2)  # that was [B, H, S]


attention = KernelAttention(_fa3)
