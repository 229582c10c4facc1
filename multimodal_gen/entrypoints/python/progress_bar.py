"""Progress bar of a call from Python, in a notebook or on a terminal."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress

if TYPE_CHECKING:
    from tqdm import tqdm

SHOWN_AFTER_S = 0.5
"""Shorter calls show no bar."""


def wants_bar(asked: bool | None) -> bool:
    """Return `asked`; None stands for a call from the main thread of a notebook, or of a program
    whose standard error is a terminal."""
    if asked is not None:
        return asked
    in_main = threading.current_thread() is threading.main_thread()
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    return in_main and (in_notebook() or on_terminal)


def in_notebook() -> bool:
    """Return whether the process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def bar_of(**options: Any) -> tqdm[Any]:
    """Return a bar: a widget in a notebook that has ipywidgets, otherwise text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the advice to install ipywidgets
        from tqdm.auto import tqdm

    return tqdm(**options)


class StepBar:
    """One bar for all prompts of a call, which disappears at the end. A context manager."""

    def __init__(self, prompts: int) -> None:
        self._prompts = prompts
        self._progress: dict[int, tuple[int, int]] = {}
        self._phase = ""
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> StepBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def report(self, index: int, event: Progress | GenerationResult) -> None:
        """Keep the progress of prompt `index`, from any thread."""
        if isinstance(event, Progress):
            self._progress[index] = event.step, event.total
            self._phase = event.phase
        elif index in self._progress:
            total = self._progress[index][1]
            self._progress[index] = total, total

    def draw(self) -> None:
        """Show what was reported: in the calling thread, as notebooks show the output of others
        below the cell that started them."""
        if not (known := list(self._progress.values())):
            return
        # Prompts that have not begun are expected to take as many steps as the others.
        total = round(sum(total for _, total in known) / len(known) * self._prompts)
        if self._bar is None:
            self._bar = bar_of(total=total, unit="step", leave=False, delay=SHOWN_AFTER_S)
        elif total != self._bar.total:
            self._bar.reset(total)
        self._bar.set_description(self._phase, refresh=False)
        self._bar.update(sum(step for step, _ in known) - self._bar.n)
