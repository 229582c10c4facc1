"""The YAML file that `--config` names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import CycloptsError, Parameter
from cyclopts.config import Dict

from multimodal_gen.configs.model_spec import as_options
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.entrypoints.cli.options.option_owners import OptionOwners, takes

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection

Config = Annotated[Path | None, Parameter(name="--config")]
"""The type of a command's `config` argument."""


class ConfigFile:
    """Sets options that are not set otherwise to the values of their keys in the file.

    Commands can share one file: keys of options that only other commands have are ignored.
    """

    def __init__(self, owners: Callable[[], OptionOwners]) -> None:
        self._owners = owners

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        path = next(
            (token.value for a in arguments if a.name == "--config" for token in a.tokens), ""
        )
        if not path:
            return
        try:
            keys = self._own_keys(_read(path), arguments)
        except (OSError, ValueError) as error:
            raise CycloptsError(msg=f"--config {path}: {error}") from error
        Dict(keys, source=path, use_commands_as_keys=False)(app, commands, arguments)

    def _own_keys(self, config: object, arguments: ArgumentCollection) -> dict[str, Any]:
        """Return the keys that this command has. Raises ValueError for one that no command has."""
        if not isinstance(config, dict):
            raise ValueError("must have lines of the form `option: value`")
        others = [key for key in config if not takes(arguments, f"--{key}")]
        for key in others:
            self._check_known(key)
        own = {key: value for key, value in config.items() if key not in others}
        return {**own, "model": as_options(own["model"])} if "model" in own else own

    def _check_known(self, key: object) -> None:
        owners = self._owners()
        if not owners.of(f"--{key}"):
            nearest = owners.nearest_key(str(key))
            hint = f"; did you mean {nearest}?" if nearest else ""
            raise ValueError(f"{key} is not an option of any command{hint}")


def _read(path: str) -> object:
    """Return the file's content. Raises OSError, and ValueError for invalid YAML."""
    import yaml

    try:
        with user_path(path).open("rb") as file:
            return yaml.safe_load(file) or {}
    except OSError:
        raise
    except Exception as error:  # The library raises what it happens to raise, as for `!!bool x`.
        raise ValueError(f"invalid YAML: {error}") from error
