"""Doubles of the kernels of GPUs: they compute in float64 what the kernels' definitions say, and
check that they are given what the kernels accept."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal_gen.runtime.layers.attention.backends import cudnn, efficient, flash

Found = tuple[Tensor, Tensor]


def exact(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Found:
    """Output [B, S, H, D] and log-sum-exp [B, S, H] in float64."""
    scores = torch.einsum("bqhd,bkhd->bqhk", q.double(), k.double()) / q.shape[-1] ** 0.5
    if lengths is not None:
        valid = torch.arange(k.shape[1]) < lengths[:, None, None, None]
        scores = scores.masked_fill(~valid, float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0)
    return torch.einsum("bqhk,bkhd->bqhd", weights, v.double()), scores.logsumexp(-1)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the doubles in the place of torch's kernels and of the wheel of FlashAttention-3."""
    kernels = SimpleNamespace(
        _scaled_dot_product_flash_attention=_flash,
        _flash_attention_forward=_flash_of_lengths,
        _scaled_dot_product_efficient_attention=_efficient,
        _efficient_attention_forward=_efficient_of_lengths,
        _scaled_dot_product_cudnn_attention=_cudnn,
    )
    for module in (flash, efficient, cudnn):
        monkeypatch.setattr(module, "_aten", kernels)
    wheel: Any = ModuleType("fa3_fwd_interface")
    wheel.flash_attn_func = _fa3
    wheel.flash_attn_with_kvcache = _fa3_of_lengths
    wheel.__spec__ = SimpleNamespace(name="fa3_fwd_interface")
    monkeypatch.setitem(sys.modules, "fa3_fwd_interface", wheel)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """q, k, v and output [B, H, S, D], log-sum-exp [B, H, S]."""
    out, scores = _of(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return [out.transpose(1, 2), scores.transpose(1, 2).contiguous(), torch.empty(0)]


def _flash_of_lengths(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts_q: Tensor,
    starts_k: Tensor,
    most_q: int,
    most_k: int,
    dropout: float,
    causal: bool,
    debug: bool,
    *,
    seqused_k: Tensor,
) -> list[Tensor]:
    """q, k, v and output [tokens, H, D], log-sum-exp [H, tokens]."""
    assert (dropout, causal, debug) == (0, False, False)
    rows = _rows(q, k, v, starts_q, starts_k, seqused_k)
    assert max(len(q) for q, _, _ in rows) <= most_q
    assert max(len(k) for _, k, _ in rows) <= most_k
    found = [_of(*(x[None] for x in row), broken=True) for row in rows]
    scores = torch.cat([scores[0] for _, scores in found]).T
    return [torch.cat([out[0] for out, _ in found]), scores.contiguous(), torch.empty(0)]


def _efficient(q: Tensor, k: Tensor, v: Tensor, bias: None, scores: bool) -> list[Tensor]:
    """q, k, v and output [B, H, S, D], log-sum-exp [B, H, a multiple of 32] if it is wanted."""
    assert bias is None
    out, of_scores = _of(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return [out.transpose(1, 2), _in_tiles(of_scores, scores), torch.empty(0)]


def _efficient_of_lengths(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: None,
    starts_q: Tensor,
    starts_k: Tensor,
    most_q: int,
    most_k: int,
    dropout: float,
    mask: int,
    scores: bool,
    *,
    seqlen_k: Tensor,
) -> list[Tensor]:
    """q, k, v and output [1, tokens, H, D], log-sum-exp [B, H, a multiple of 32]."""
    assert (bias, dropout, mask) == (None, 0, 0)
    rows = _rows(q.squeeze(0), k.squeeze(0), v.squeeze(0), starts_q, starts_k, seqlen_k)
    assert {len(q) for q, _, _ in rows} == {most_q}
    assert max(len(k) for _, k, _ in rows) <= most_k
    found = [_of(*(x[None] for x in row), broken=True) for row in rows]
    tiles = _in_tiles(torch.cat([scores for _, scores in found]), scores)
    return [torch.cat([out for out, _ in found], dim=1), tiles, torch.empty(0)]


def _cudnn(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scores: bool) -> list[Tensor]:
    """q, k, v and output [B, H, S, D], bias [B, H, S_q, S_k], log-sum-exp [B, H, S, 1]."""
    lengths = None
    assert k.shape[2] > 1
    if bias is not None:
        assert bias.dtype == q.dtype
        assert bias.shape == (*q.shape[:3], k.shape[2])
        assert torch.equal(bias.nan_to_num(neginf=1), torch.isneginf(bias).to(bias.dtype))
        lengths = (bias == 0).sum(-1)[:, 0, 0]
    found = _of(*(x.transpose(1, 2) for x in (q, k, v)), lengths)
    of_scores = found[1].transpose(1, 2).unsqueeze(-1) if scores else torch.empty(0)
    return [found[0].transpose(1, 2), of_scores, torch.empty(0)]


def _fa3(q: Tensor, k: Tensor, v: Tensor, *, return_attn_probs: bool) -> Found:
    """q, k, v and output [B, S, H, D], log-sum-exp [B, H, S]."""
    assert return_attn_probs
    out, scores = _of(q, k, v)
    return out, scores.transpose(1, 2).contiguous()


def _fa3_of_lengths(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor,
    num_splits: int,
    return_softmax_lse: bool,
) -> tuple[Tensor, ...]:
    """The same, of the first tokens of each row of a cache, and what splits would have."""
    assert (num_splits, return_softmax_lse) == (1, True)
    _check_numbers(cache_seqlens, len(q))
    out, scores = _of(q, k_cache, v_cache, cache_seqlens, broken=True)
    return out, scores.transpose(1, 2).contiguous(), torch.empty(0), torch.empty(0)


def _of(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, *, broken: bool = False
) -> Found:
    """Output and log-sum-exp, whose rows without a key are undefined if they are `broken`."""
    for x in (q, k, v):
        assert x.dim() == 4
        assert x.stride(-1) == 1
        assert x.shape[-1] % 8 == 0
        assert x.dtype == q.dtype
    assert k.shape == v.shape
    assert (len(q), *q.shape[2:]) == (len(k), *k.shape[2:])
    out, scores = exact(q, k, v, lengths)
    if broken:
        out = out.masked_fill(torch.isneginf(scores)[..., None], float("nan"))
        scores = scores.masked_fill(torch.isneginf(scores), float("inf"))
    return out.to(q.dtype), scores.float()


def _rows(
    q: Tensor, k: Tensor, v: Tensor, starts_q: Tensor, starts_k: Tensor, valid: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Queries, and valid keys and values, of each row of packed ones [tokens, H, D]."""
    rows = len(starts_q) - 1
    for numbers, count in ((starts_q, rows + 1), (starts_k, rows + 1), (valid, rows)):
        _check_numbers(numbers, count)
    assert (starts_q[-1], starts_k[-1]) == (len(q), len(k))
    found = []
    for row, count in enumerate(valid.tolist()):
        first, start = int(starts_q[row]), int(starts_k[row])
        keys = slice(start, start + count)
        found.append((q[first : starts_q[row + 1]], k[keys], v[keys]))
    return found


def _check_numbers(numbers: Tensor, count: int) -> None:
    assert numbers.dtype == torch.int32
    assert numbers.is_contiguous()
    assert numbers.shape == (count,)


def _in_tiles(scores: Tensor, wanted: bool) -> Tensor:
    """Log-sum-exp [B, S, H] as [B, H, S] with S padded to a multiple of 32."""
    if not wanted:
        return scores.new_empty(len(scores), scores.shape[2], 0)
    padding = -scores.shape[1] % 32
    return torch.nn.functional.pad(scores.transpose(1, 2), (0, padding), value=float("nan"))
