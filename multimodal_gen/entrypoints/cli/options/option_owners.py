"""Finds the commands that have an option, and the option that a wrong one was meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection, UnknownOptionError

_SIMILAR = 0.7
ELSEWHERE: Mapping[str, str] = {
    "api-key": "--server-key-file",
    "batch": "-n",
    "batch-count": "-n",
    "batch-size": "-n",
    "cfg": "--guidance-scale",
    "cfg-scale": "--guidance-scale",
    "count": "-n",
    "denoise": "--strength",
    "denoising-strength": "--strength",
    "frames": "--num-frames",
    "gpus": "--num-gpus",
    "guidance": "--guidance-scale",
    "image": "--image-path",
    "init-image": "--image-path",
    "init-img": "--image-path",
    "input": "--image-path",
    "input-image": "--image-path",
    "iterations": "--steps",
    "lora-path": "--lora-dir",
    "mask": "--mask-path",
    "model": "--model-path",
    "n-iter": "-n",
    "neg": "--negative-prompt",
    "neg-prompt": "--negative-prompt",
    "num-images": "-n",
    "num-images-per-prompt": "-n",
    "num-samples": "-n",
    "out": "-o",
    "outdir": "-o",
    "output": "-o",
    "output-dir": "-o",
    "overwrite": "--force",
    "precision": "--dtype",
    "prompt-file": "--prompt-path",
    "prompts": "--prompt-path",
    "resolution": "-W and -H",
    "sampler": "--scheduler",
    "sampling-method": "--scheduler",
    "sampling-steps": "--steps",
    "shift": "--flow-shift",
    "size": "-W and -H",
    "solver": "--scheduler",
    "upscaler": "--upscale",
    "url": "--server",
    "video": "--video-path",
}
"""Names that other tools give to options of `generate`."""


class OptionOwners:
    """Finds the commands that an option belongs to; imports them on first use."""

    def __init__(self, app: App, commands: Iterable[str]) -> None:
        self._app = app
        self._commands = list(commands)

    def explain(self, error: UnknownOptionError, command: str) -> str:
        """Return a message with the commands that have the option, or the option that was meant."""
        option = (error.token.keyword or error.token.value).split("=")[0]
        name, said = _name_in(option), f"Unknown option: {option}"
        if command == "generate" and name in ELSEWHERE:
            return f"{said}. Did you mean {ELSEWHERE[name]}?"
        if owners := self.of(option):
            return f"{option} is an option of {_listed(owners)}"
        if meant := self._meant(option, command):
            return f"{said}. Did you mean {meant}?"
        if nearest := self._nearest(option, self._commands):
            return f"{said}. Did you mean {nearest}, an option of {_listed(self.of(nearest))}?"
        return said

    def of(self, option: str) -> list[str]:
        """Return the names of the commands that take `option`."""
        return [name for name in self._commands if takes(self._arguments(name), option)]

    def nearest_key(self, key: str) -> str | None:
        """Return the YAML key that is most similar to `key`, or None."""
        option = self._nearest(key.replace("_", "-"), self._commands)
        return option and option.removeprefix("--").replace("-", "_")

    def _meant(self, option: str, command: str) -> str | None:
        """The option of `command` that begins so, or is most similar."""
        name, known = _name_in(option), self._names([command])
        if name in known:
            return known[name]
        begin = [long for word, long in known.items() if len(name) > 1 and word.startswith(name)]
        return begin[0] if len(begin) == 1 else self._nearest(option, [command])

    def _nearest(self, option: str, commands: Iterable[str]) -> str | None:
        known = self._names(commands)
        near = get_close_matches(option.lstrip("-"), known, n=1, cutoff=_SIMILAR)
        return known[near[0]] if near else None

    def _names(self, commands: Iterable[str]) -> dict[str, str]:
        """The long names of options, by what follows their hyphens."""
        return {
            name.lstrip("-"): name
            for command in commands
            if command in self._commands
            for argument in self._arguments(command)
            for name in argument.names
            if name.startswith("--")
        }

    def _arguments(self, command: str) -> ArgumentCollection:
        return self._app[command].assemble_argument_collection()


def _name_in(option: str) -> str:
    return option.lstrip("-").replace("_", "-").lower()


def takes(arguments: ArgumentCollection, option: str) -> bool:
    """Return whether one of a command's `arguments` is `option`."""
    try:
        arguments.match(option)
    except ValueError:
        return False
    return True


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
