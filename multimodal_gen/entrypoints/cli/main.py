"""The `multimodal-gen` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from cyclopts.config import Env

from multimodal_gen.entrypoints.cli.config_file import ConfigFile
from multimodal_gen.entrypoints.cli.option_owners import OptionOwners
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.version import __version__

NAME = "multimodal-gen"
FAILED, BAD_USE, INTERRUPTED = 1, 2, 130
_HERE = "multimodal_gen.entrypoints.cli"
_COMMANDS = {
    "generate": "Make pictures or videos of prompts.",
    "serve": "Answer HTTP requests, and show a page to play on.",
    "bench": "Measure this engine against stock diffusers.",
    "models": "List the model families, or say what a checkpoint is.",
}
_EPILOGUE = (
    "Every option is also a key of the YAML file that --config names (num_gpus: 2) and an "
    "environment variable (MULTIMODAL_GEN_NUM_GPUS=2). An option on the command line wins over a "
    "variable, a variable over the file. "
    "Exit status: 0, 1 when something failed, 2 when the command was not understood, "
    "130 after Ctrl-C."
)


def _default_shown(value: Any) -> Any:
    """None hides a default that says nothing."""
    if value is False or value in ("", ()):
        return None
    return f"{value:g}" if isinstance(value, float) else value


def _owners() -> OptionOwners:
    return OptionOwners(app, _COMMANDS)


app = App(
    name=NAME,
    version=__version__,
    help="Pictures and videos from diffusion models.",
    help_epilogue=_EPILOGUE,
    help_format="plaintext",
    default_parameter=Parameter(
        show_env_var=False, show_default=_default_shown, negative_iterable=()
    ),
    config=[Env("MULTIMODAL_GEN_", command=False), ConfigFile(_owners)],
    suppress_keyboard_interrupt=False,
)
for _name, _help in _COMMANDS.items():
    app.command(f"{_HERE}.{_name}:{_name}", name=_name, help=_help)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    if not tokens:
        return _fail(f"a command is missing: {', '.join(_COMMANDS)} (see {NAME} --help)", BAD_USE)
    try:
        status = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except UnknownOptionError as error:
        return _fail(f"{_owners().explain(error)} (see {NAME} --help)", BAD_USE)
    except CycloptsError as error:
        return _fail(f"{_one_line(str(error))} (see {NAME} --help)", BAD_USE)
    except InvalidRequest as error:
        return _fail(error.message, BAD_USE)
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MultimodalGenError, OSError) as error:
        return _fail(str(error), FAILED)
    except KeyboardInterrupt:
        return _fail("cancelled", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    print(f"{NAME}: {message}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    return " ".join(text.split())
