"""Shows how far the model is loaded: a bar on a terminal, else a line for each large component."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from multimodal_gen.messages.loading import LoadingProgress

_WORTH_SHOWING = 10**8
"""Bytes of a model from which on loading takes a while."""
_WORTH_A_LINE = 10**9


class LoadingDisplay:
    """Writes to stderr. A context manager; the bar disappears at its end."""

    def __init__(self, make_bar: Callable[..., tqdm[Any]] | None = None) -> None:
        """`make_bar` makes the bar, which is then shown also where there is no terminal."""
        self._wants_bar = make_bar is not None or sys.stderr.isatty()
        self._make_bar = make_bar or tqdm
        self._first: tqdm[Any] | None = None
        self._bar: tqdm[Any] | None = None
        self._component = ""

    def __enter__(self) -> LoadingDisplay:
        """On a terminal, say at once that something is done: the libraries take seconds."""
        if self._make_bar is tqdm and self._wants_bar:
            self._first = tqdm(total=1, leave=False, bar_format="loading …")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for bar in (self._first, self._bar):
            if bar is not None:
                bar.close()
        self._first = self._bar = None

    def show(self, progress: LoadingProgress) -> None:
        """Show the newest progress."""
        if self._wants_bar:
            self._draw(progress)
        elif progress.total_bytes >= _WORTH_A_LINE and progress.component != self._component:
            self._component = progress.component
            print(f"multimodal-gen: {described(progress)}", file=sys.stderr, flush=True)

    def _draw(self, progress: LoadingProgress) -> None:
        if progress.total_bytes < _WORTH_SHOWING:
            return
        if self._bar is None:
            self.close()
            shown = "loading {desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} GB"
            size = progress.total_bytes / 1e9
            self._bar = self._make_bar(total=size, leave=False, bar_format=shown)
        self._bar.set_description(progress.component, refresh=False)
        self._bar.n = progress.loaded_bytes / 1e9
        self._bar.refresh()


def described(progress: LoadingProgress) -> str:
    """Such as `loading transformer: 9.9 of 33.7 GB`."""
    loaded, total = progress.loaded_bytes / 1e9, progress.total_bytes / 1e9
    return f"loading {progress.component}: {loaded:.1f} of {total:.1f} GB"
