"""Finds the commands that have an option."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection, UnknownOptionError


class OptionOwners:
    """Finds the commands that an option belongs to; imports them on first use."""

    def __init__(self, app: App, commands: Iterable[str]) -> None:
        self._app = app
        self._commands = commands

    def explain(self, error: UnknownOptionError) -> str:
        """Return a message with the commands that have the option, or a similar option."""
        option = (error.token.keyword or error.token.value).split("=")[0]
        if owners := self.of(option):
            return f"{option} is an option of {_listed(owners)}"
        said = " ".join(str(error).split()).removesuffix(".")
        nearest = None if "?" in said else self._nearest(option)
        if nearest is None:
            return said
        return f"{said}. Did you mean {nearest}, an option of {_listed(self.of(nearest))}?"

    def of(self, option: str) -> list[str]:
        """Return the names of the commands that take `option`."""
        return [name for name in self._commands if takes(self._arguments(name), option)]

    def nearest_key(self, key: str) -> str | None:
        """Return the YAML key that is most similar to `key`, or None."""
        option = self._nearest(key.replace("_", "-"))
        return option and option.removeprefix("--").replace("-", "_")

    def _nearest(self, option: str) -> str | None:
        known = {
            name.lstrip("-"): name
            for command in self._commands
            for argument in self._arguments(command)
            for name in argument.names
        }
        return next((known[name] for name in get_close_matches(option.lstrip("-"), known)), None)

    def _arguments(self, command: str) -> ArgumentCollection:
        return self._app[command].assemble_argument_collection()


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
