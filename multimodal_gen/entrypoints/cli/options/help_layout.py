"""Layout of --help: what most people need, and the names of everything else."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve
from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel

WHOLE = "--help-all"
"""Describes every option of `generate`; `--help` only names the rarer ones."""
_RARE = (
    *("enhance-prompt", "prompt-syntax", "max-sequence-length", "fps"),
    *("timestep-spacing", "sigmas", "flow-shift", "decode-timestep", "decode-noise-scale"),
    *("guidance-scale-2", "audio-guidance-scale", "stg-scale", "modality-scale"),
    *("guidance-rescale", "guidance-start", "guidance-stop", "guidance-method"),
    *("zero-init-steps", "apg-eta", "apg-norm", "apg-momentum"),
    *("last-image-path", "image-use", "conditioning-scale", "priority", "deadline-s"),
    *("component", "revision", "residency", "compile", "prompt-enhancer", "device-memory-gb"),
)


@define(kw_only=True)
class HelpLayout(DefaultFormatter):
    """Shows `--metadata --no-metadata` as `--metadata --no-`, which leaves room for texts, and can
    fold the rare options of a panel into a line."""

    folds: bool = False

    def __call__(self, console: Any, options: Any, panel: HelpPanel) -> None:
        entries = [
            evolve(each, negative_names=("--no-",)) if each.negative_names else each
            for each in panel.entries
        ]
        super().__call__(console, options, panel.copy(entries=self._folded(entries)))

    def _folded(self, entries: list[HelpEntry]) -> list[HelpEntry]:
        rare = [each for each in entries if self.folds and _is_rare(each)]
        if not rare:
            return entries
        named = ", ".join(each.positive_names[0] for each in rare)
        folded = HelpEntry(positive_names=("also",), description=named)
        return [*(each for each in entries if each not in rare), folded]


def _is_rare(entry: HelpEntry) -> bool:
    return any(name.removeprefix("--") in _RARE for name in entry.positive_names)
