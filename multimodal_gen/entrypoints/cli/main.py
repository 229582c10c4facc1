"""The `multimodal-gen` command. Each command imports the heavy modules that it needs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.config import Env

from multimodal_gen.entrypoints.cli.options.as_typed import ENVIRONMENT, AsTyped
from multimodal_gen.entrypoints.cli.options.config_file import ConfigFile
from multimodal_gen.entrypoints.cli.options.help_layout import WHOLE, HelpLayout
from multimodal_gen.entrypoints.cli.options.hyphens import with_hyphens_as_values
from multimodal_gen.entrypoints.cli.options.option_owners import OptionOwners
from multimodal_gen.entrypoints.cli.text_output import may_be_closed, printable
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.version import __version__

NAME = "multimodal-gen"
FAILED, BAD_USE, INTERRUPTED = 1, 2, 130
_HERE = "multimodal_gen.entrypoints.cli.commands"
_COMMANDS = {
    "generate": "Generate images or videos from prompts.",
    "serve": "Run the HTTP server and the web playground.",
    "info": "Show how an image or a video was made.",
    "models": "List the model families, or describe a checkpoint.",
    "bench": "Measure this engine against stock diffusers.",
    "engine": "Run an engine for fronts on other machines.",
    "keys": "Make keys that let other machines into an engine.",
    "completion": "Print a script that completes commands and options in a shell.",
}
_ELSEWHERE = {"engine": "machines", "keys": "machines"}
"""Commands whose module has another name."""
_EPILOGUE = (
    "Environment variables set options too (MULTIMODAL_GEN_NUM_GPUS=2). "
    "Exit: 1 failure, 2 usage error."
)
_EXAMPLES = f"""\
Examples:
  multimodal-gen generate "a red heart" -o heart.png
  multimodal-gen generate "a pizza" "a dog" -n 4 -s 7 -o "out/{{prompt}}-{{seed}}.png"
  multimodal-gen generate "a blue house" --image-path photo.jpg --strength 0.7
  multimodal-gen generate --from heart.png --steps 40         # as heart.png, with more steps
  multimodal-gen generate "a cat" --model-path owner/name -W 1024 -H 768
{WHOLE} describes every option. {_EPILOGUE}"""


def _default_shown(value: Any) -> Any:
    """Format a default for --help; None hides it."""
    if value is False or value in ("", ()):
        return None
    return f"{value:g}" if isinstance(value, float) else value


def _owners() -> OptionOwners:
    return OptionOwners(app, _COMMANDS)


_of_generate = HelpLayout(folds=True)
_KEYWORDS: dict[str, dict[str, Any]] = {
    "generate": {
        "usage": f"Usage: {NAME} generate [PROMPT ...] [OPTIONS]",
        "help_epilogue": _EXAMPLES,
        "help_formatter": _of_generate,
    }
}
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
    config=[Env(ENVIRONMENT, command=False), ConfigFile(_owners)],
    suppress_keyboard_interrupt=False,
)
for _name, _help in _COMMANDS.items():
    _keywords = {"help": _help, **_KEYWORDS.get(_name, {})}
    app.command(f"{_HERE}.{_ELSEWHERE.get(_name, _name)}:{_name}", name=_name, **_keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    if not tokens:
        commands = ", ".join(_COMMANDS)
        return _fail(f"missing command: must be one of {commands} (see {NAME} --help)", BAD_USE)
    _of_generate.folds = WHOLE not in tokens
    tokens = ["--help" if token == WHOLE else token for token in tokens]
    status: Any = 0
    try:
        with may_be_closed():
            status = app(
                with_hyphens_as_values(tokens),
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
    except UnknownOptionError as error:
        return _fail(f"{_owners().explain(error, tokens[0])} (see {_help_of(tokens)})", BAD_USE)
    except UnknownCommandError:
        return _fail(_unknown_command(tokens[0]), BAD_USE)
    except CycloptsError as error:
        return _fail(f"{_sentence(error)} (see {_help_of(tokens)})", BAD_USE)
    except InvalidRequest as error:
        return _fail(_as_typed(tokens, error), BAD_USE)
    except (MultimodalGenError, OSError) as error:
        return _fail(str(error), FAILED)
    except KeyboardInterrupt:
        return _fail("cancelled", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _as_typed(tokens: Sequence[str], error: InvalidRequest) -> str:
    return AsTyped(tokens, app[tokens[0]].assemble_argument_collection()).message(error)


def _help_of(tokens: Sequence[str]) -> str:
    return f"{NAME} {tokens[0]} --help" if tokens[0] in _COMMANDS else f"{NAME} --help"


def _unknown_command(given: str) -> str:
    """The message about a word that is no command, which may be a prompt."""
    if given in ("help", "version"):
        hint = f"Did you mean {NAME} --{given}?"
    elif near := get_close_matches(given, _COMMANDS, n=1):
        hint = f"Did you mean {near[0]}?"
    elif given.startswith("-"):
        hint = f"A command comes first, as in `{NAME} generate {shlex.quote(given)} …`."
    else:
        hint = f"To generate: {NAME} generate {shlex.quote(given)}."
    return f'Unknown command "{given}". {hint} Commands: {", ".join(_COMMANDS)} (see {NAME} --help)'


def _sentence(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(map(shlex.quote, error.unused_tokens or ()))
        return f"{words}: not an option, and this command takes no such word"
    return str(error)


def _fail(message: str, status: int) -> int:
    shown = printable(_one_line(message)).encode(errors="backslashreplace").decode()
    print(f"{NAME}: {shown}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    return " ".join(text.split())
