"""Interface of the decoding of one request that all ranks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class SharedDecoding(Protocol):
    """Decodes in units, in which ranks wait for one another: a failure on one rank ends none."""

    failure: Exception | None
    """The first error on this rank."""

    def advance(
        self, measure: Callable[[Tensor], None], finish: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Do the next unit. Returns the frames that it completed, each [F, H, W, 3] uint8.

        Only rank 0 has frames; there, `measure` is given all pixels, and `finish` all frames.
        """
