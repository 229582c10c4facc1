"""Triton kernels. Everything is computed in float32 and rounded when it is stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048
"""Numbers that a program holds, or one row of them."""


@triton.jit  # type: ignore[untyped-decorator]
def _norm(
    x: tl.tensor,
    update: tl.tensor,
    gate: tl.tensor,
    total: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    x_row: tl.tensor,
    x_token: tl.tensor,
    update_row: tl.tensor,
    update_token: tl.tensor,
    gate_row: tl.tensor,
    scale_row: tl.tensor,
    shift_row: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    GATED: tl.constexpr,
    CENTRED: tl.constexpr,
    SHIFTED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A program a token."""
    program = tl.program_id(0).to(tl.int64)
    row, token = program // tokens, program % tokens
    at = tl.arange(0, BLOCK)
    there = at < width
    place = x + row * x_row + token * x_token + at
    values = tl.load(place, mask=there, other=0.0).to(tl.float32)
    if GATED:
        place = update + row * update_row + token * update_token + at
        added = tl.load(place, mask=there, other=0.0).to(tl.float32)
        by = tl.load(gate + row * gate_row + at, mask=there, other=0.0).to(tl.float32)
        rounded = (values + by * added).to(total.dtype.element_ty)
        tl.store(total + program * width + at, rounded, mask=there)
        values = rounded.to(tl.float32)
    if CENTRED:
        values = tl.where(there, values - tl.sum(values, axis=0) / width, 0.0)
    square = tl.sum(values * values, axis=0) / width
    values = values / tl.sqrt(square + eps)
    values *= tl.load(scale + row * scale_row + at, mask=there, other=0.0).to(tl.float32)
    if SHIFTED:
        values += tl.load(shift + row * shift_row + at, mask=there, other=0.0).to(tl.float32)
    tl.store(out + program * width + at, values.to(out.dtype.element_ty), mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _heads(
    qk: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    table: tl.tensor,
    out: tl.tensor,
    qk_row: tl.tensor,
    qk_token: tl.tensor,
    qk_kind: tl.tensor,
    qk_head: tl.tensor,
    first_row: tl.tensor,
    second_row: tl.tensor,
    table_row: tl.tensor,
    tokens: tl.tensor,
    boundary: tl.tensor,
    heads: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    ROTATED: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A program for some of the queries and keys of a token, each of this width."""
    program = tl.program_id(0).to(tl.int64)
    row, token = program // tokens, program % tokens
    number = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    kind, at = number // heads, tl.arange(0, BLOCK)
    there = (number < 2 * heads)[:, None] & (at < width)[None, :]
    own = kind * qk_kind + (number % heads) * qk_head
    place = qk + row * qk_row + token * qk_token + own[:, None] + at[None, :]
    values = tl.load(place, mask=there, other=0.0).to(tl.float32)
    square = tl.sum(values * values, axis=1) / width
    values = values / tl.sqrt(square + eps)[:, None]
    of_kind = kind[:, None] * width + at[None, :]
    if token < boundary:
        weight = tl.load(first + row * first_row + of_kind, mask=there, other=0.0)
    else:
        weight = tl.load(second + row * second_row + of_kind, mask=there, other=0.0)
    values *= weight.to(tl.float32)
    if ROTATED:
        even, odd = tl.split(tl.reshape(values, (ROWS, BLOCK // 2, 2)))
        pair = tl.arange(0, BLOCK // 2)
        place = table + row * table_row + token * 2 * PAIRS + 2 * (pair % PAIRS)
        cos = tl.load(place, mask=2 * pair < width, other=0.0)[None, :]
        sin = tl.load(place + 1, mask=2 * pair < width, other=0.0)[None, :]
        turned = tl.join(even * cos - odd * sin, odd * cos + even * sin)
        values = tl.reshape(turned, (ROWS, BLOCK))
    place = out + (program * 2 * heads + number[:, None]) * width + at[None, :]
    tl.store(place, values.to(out.dtype.element_ty), mask=there)


def norm(
    x: Tensor, scale: Tensor, shift: Tensor | None, eps: float, *, centred: bool = True
) -> Tensor:
    """Norm of x [B, S, D] over D, times `scale` and plus `shift`, both [D] or [B or 1, 1, D]: a
    layer norm if `centred`, else an RMS norm."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch_norm(x, None, None, None, scale, shift, out, eps, centred)
    return out


def add_norm(
    x: Tensor,
    gate: Tensor,
    update: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    eps: float,
    *,
    centred: bool = True,
) -> tuple[Tensor, Tensor]:
    """x + gate * update for x and update [B, S, D] and gate [B or 1, 1, D], and the norm of that:
    see `norm`."""
    total, out = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    _launch_norm(x, update, gate, total, scale, shift, out, eps, centred)
    return total, out


def turned(
    qk: Tensor,
    weights: Sequence[Tensor],
    boundary: int,
    eps: float,
    table: Tensor | None,
    *,
    across: bool = False,
) -> Tensor:
    """RMS norm of queries and keys [B, S, 2, H, D] over each head, or over all if `across`, whose
    pairs (2i, 2i + 1) are then rotated by a table of `apply_rotary`.

    The queries' and the keys' weights, [2 W] or [B, 1, 2 W] together, are the first of `weights`
    for tokens before `boundary`, else the last.
    """
    rows, tokens, _, heads, width = qk.shape
    out = torch.empty(qk.shape, dtype=qk.dtype, device=qk.device)
    if not out.numel():
        return out
    pairs = width // 2
    if across:
        heads, width = 1, heads * width
    block = triton.next_power_of_2(width)
    in_program = min(max(1, _TILE // block), triton.next_power_of_2(2 * heads))
    first, second = weights[0], weights[-1]
    _heads[(rows * tokens, triton.cdiv(2 * heads, in_program))](
        qk,
        first,
        second,
        qk if table is None else table,
        out,
        *qk.stride()[:4],
        _row_stride(first, 1),
        _row_stride(second, 1),
        0 if table is None else _row_stride(table, 3),
        tokens,
        boundary,
        heads,
        width,
        eps,
        ROTATED=table is not None,
        PAIRS=pairs,
        ROWS=in_program,
        BLOCK=block,
        num_warps=_warps(block * in_program),
    )
    return out


def _launch_norm(
    x: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    total: Tensor | None,
    scale: Tensor,
    shift: Tensor | None,
    out: Tensor,
    eps: float,
    centred: bool,
) -> None:
    rows, tokens, width = x.shape
    if not x.numel():
        return
    block = triton.next_power_of_2(width)
    _norm[(rows * tokens,)](
        x,
        x if update is None else update,
        x if gate is None else gate,
        x if total is None else total,
        scale,
        scale if shift is None else shift,
        out,
        *x.stride()[:2],
        *((0, 0) if update is None else update.stride()[:2]),
        0 if gate is None else _row_stride(gate, 1),
        _row_stride(scale, 1),
        0 if shift is None else _row_stride(shift, 1),
        tokens,
        width,
        eps,
        GATED=gate is not None,
        CENTRED=centred,
        SHIFTED=shift is not None,
        BLOCK=block,
        num_warps=_warps(block),
    )


def _row_stride(vector: Tensor, of_row: int) -> int:
    """Numbers from one row's to the next one's; 0 if there is one for all. A row's have `of_row`
    dimensions."""
    several = vector.dim() > of_row and vector.shape[0] > 1
    return vector.stride(0) if several else 0


def _warps(numbers: int) -> int:
    return max(1, min(16, numbers // 512))
