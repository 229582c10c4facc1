"""The YAML file that `--config` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter
from cyclopts.config import Yaml

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection

Config = Annotated[Path | None, Parameter(name="--config")]
"""The type of a command's `config` argument."""


class ConfigFile:
    """Gives arguments that nothing else gave the values of their keys in the file."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        path = next(
            (token.value for a in arguments if a.name == "--config" for token in a.tokens), ""
        )
        if not path:
            return
        try:
            file = Yaml(path, must_exist=True, use_commands_as_keys=False)
            file(app, commands, arguments)
        except CycloptsError as error:
            if error.__cause__ is None:
                raise
            # What is no YAML: the parser's own words name the line.
            raise CycloptsError(msg=f"--config {path}: {error.__cause__}") from error
        except (OSError, ValueError) as error:
            raise CycloptsError(msg=f"--config {path}: {error}") from error
