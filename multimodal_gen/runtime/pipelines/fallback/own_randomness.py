"""Random numbers that a library draws without a generator."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch


class OwnRandomness:
    """A context in which torch's global random state follows from a seed, and that a function may
    leave for a while: then the state outside is what it was."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._seed: int | None = seed
        self._own: Any = None
        self._outside: Any = None

    def __enter__(self) -> OwnRandomness:
        self._outside = self._state()
        if self._seed is not None:
            torch.manual_seed(self._seed)
            self._seed = None
        else:
            self._set(self._own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._outside is not None:
            self._own = self._state()
            self._set(self._outside)
            self._outside = None

    def leave(self) -> None:
        """Go outside, until it is entered again."""
        self.__exit__()

    def _state(self) -> tuple[Any, Any]:
        own = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)
        return torch.get_rng_state(), own

    def _set(self, state: tuple[Any, Any]) -> None:
        torch.set_rng_state(state[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(state[1], self._cuda)
