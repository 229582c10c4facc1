"""The `multimodal-gen` command. Each command imports the heavy modules that it needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from cyclopts.config import Env

from multimodal_gen.entrypoints.cli.options.config_file import ConfigFile
from multimodal_gen.entrypoints.cli.options.option_groups import HelpLayout
from multimodal_gen.entrypoints.cli.options.option_owners import OptionOwners
from multimodal_gen.entrypoints.cli.text_output import may_be_closed
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.version import __version__

NAME = "multimodal-gen"
FAILED, BAD_USE, INTERRUPTED = 1, 2, 130
_HERE = "multimodal_gen.entrypoints.cli.commands"
_COMMANDS = {
    "generate": "Generate images or videos from prompts.",
    "serve": "Run the HTTP server and the web playground.",
    "bench": "Measure this engine against stock diffusers.",
    "models": "List the model families, or describe a checkpoint.",
    "engine": "Run an engine for fronts on other machines.",
    "keys": "Make keys that let other machines into an engine.",
}
_ELSEWHERE = {"engine": "machines", "keys": "machines"}
"""Commands whose module has another name."""
_EPILOGUE = (
    "Environment variables set options too (MULTIMODAL_GEN_NUM_GPUS=2). "
    "Exit: 1 failure, 2 usage error."
)


def _default_shown(value: Any) -> Any:
    """Format a default for --help; None hides it."""
    if value is False or value in ("", ()):
        return None
    return f"{value:g}" if isinstance(value, float) else value


def _owners() -> OptionOwners:
    return OptionOwners(app, _COMMANDS)


app = App(
    name=NAME,
    version=__version__,
    help="Generate images and videos with diffusion models.",
    help_epilogue=_EPILOGUE,
    help_format="plaintext",
    help_formatter=HelpLayout(),
    default_parameter=Parameter(
        show_env_var=False, show_default=_default_shown, negative_iterable=()
    ),
    config=[Env("MULTIMODAL_GEN_", command=False), ConfigFile(_owners)],
    suppress_keyboard_interrupt=False,
)
for _name, _help in _COMMANDS.items():
    app.command(f"{_HERE}.{_ELSEWHERE.get(_name, _name)}:{_name}", name=_name, help=_help)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    if not tokens:
        commands = ", ".join(_COMMANDS)
        return _fail(f"missing command: must be one of {commands} (see {NAME} --help)", BAD_USE)
    status: Any = 0
    try:
        with may_be_closed():
            status = app(
                tokens, exit_on_error=False, print_error=False, result_action="return_value"
            )
    except UnknownOptionError as error:
        return _fail(f"{_owners().explain(error)} (see {NAME} --help)", BAD_USE)
    except CycloptsError as error:
        return _fail(f"{error} (see {NAME} --help)", BAD_USE)
    except InvalidRequest as error:
        return _fail(error.message, BAD_USE)
    except (MultimodalGenError, OSError) as error:
        return _fail(str(error), FAILED)
    except KeyboardInterrupt:
        return _fail("cancelled", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    shown = _one_line(message).encode(errors="backslashreplace").decode()
    print(f"{NAME}: {shown}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    return " ".join(text.split())
