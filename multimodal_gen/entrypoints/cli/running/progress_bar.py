"""Progress bar on a terminal: steps done and time left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from tqdm import tqdm

from multimodal_gen.entrypoints.cli.options.hyphens import STANDARD
from multimodal_gen.entrypoints.cli.text_output import may_be_closed
from multimodal_gen.entrypoints.python.generation_result import Progress
from multimodal_gen.messages.request_warning import RequestWarning


class ProgressBar:
    """One bar for several prompts; hidden if stderr is not a terminal."""

    def __init__(self, steps: Sequence[int]) -> None:
        """`steps` per prompt, for all its outputs together."""
        self._steps = steps
        self._done = [0] * len(steps)
        self._enhancing: set[int] = set()
        self._etas: dict[int, float] = {}
        self._warned: set[RequestWarning] = set()
        self._bar = tqdm(
            total=sum(steps),
            disable=None,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix}",
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, index: int, progress: Progress) -> None:
        """Update the progress of prompt `index`."""
        if progress.eta is not None:
            self._etas[index] = progress.eta
        (self._enhancing.add if progress.phase == "enhance" else self._enhancing.discard)(index)
        self._advance(index, progress.step)

    def finish(self, index: int, written: Sequence[Path], seeds: Sequence[int] = ()) -> None:
        """Mark prompt `index` as done; prints the paths to stdout, and the seeds beside them on a
        terminal, otherwise to stderr."""
        for path, seed in zip_longest(written, seeds):
            self._print(path, seed)
        self._etas.pop(index, None)
        self._advance(index, self._steps[index])

    def _print(self, path: Path, seed: int | None) -> None:
        told = "" if seed is None else f"seed {seed}"
        if str(path) == STANDARD:
            tqdm.write(f"multimodal-gen: {told}", file=sys.stderr)
            return
        beside = told and sys.stdout.isatty()
        with may_be_closed():  # The pictures that are still to come are written all the same.
            tqdm.write(f"{path}  {told}" if beside else str(path), file=sys.stdout)
        if told and not beside:
            tqdm.write(f"multimodal-gen: {path}: {told}", file=sys.stderr)

    def warn(self, warnings: Sequence[RequestWarning]) -> None:
        """Print warnings to stderr, each once for all prompts."""
        for warning in dict.fromkeys(warnings):
            if warning not in self._warned:
                self._warned.add(warning)
                tqdm.write(f"multimodal-gen: warning: {warning}", file=sys.stderr)

    def _advance(self, index: int, step: int) -> None:
        done, self._done[index] = self._done[index], step
        doing = ", enhancing prompts" if self._enhancing else ""
        self._bar.set_postfix_str(self._eta() + doing, refresh=False)
        self._bar.update(step - done)

    def _eta(self) -> str:
        """The engine's estimate once all prompts were accepted; before, an estimate from the rate
        so far."""
        waiting = sum(done == 0 for done in self._done)
        if self._etas and not waiting:
            return f"ETA {tqdm.format_interval(max(self._etas.values()))}"
        left, rate = sum(self._steps) - sum(self._done), self._bar.format_dict["rate"]
        return f"ETA {tqdm.format_interval(left / rate)}" if rate else "ETA ?"
