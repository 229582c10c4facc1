"""Work on tokens between a transformer's blocks: residuals of control networks, and what these
networks take from their own blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

AfterBlock = Callable[[int, Tensor], None]
"""Called with a block's number and the tokens [B, S_local, dim] that leave it, which may be changed
in place."""
Residuals = Sequence[Tensor | None]
"""Added to the tokens after the blocks of these numbers, each [B, S_local, dim]."""


def adding(residuals: Residuals | None) -> AfterBlock | None:
    """Add these after their blocks; nothing is called if there are none."""
    if residuals is None:
        return None

    def add(number: int, tokens: Tensor) -> None:
        residual = residuals[number] if number < len(residuals) else None
        if residual is not None:
            tokens.add_(residual)

    return add
