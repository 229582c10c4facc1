"""The commands and their options, as the command line itself declares them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_table import code, table

from multimodal_gen.configs.parameter_reference import reference_rows
from multimodal_gen.entrypoints.cli.main import app

_COMMANDS = ("generate", "serve", "info", "models", "bench", "engine", "keys", "completion")
_ARGUMENTS = {
    "generate": "`PROMPT ...`: each is a request; `-` is standard input.",
    "info": "`FILE ...`: PNG, JPEG, WebP, GIF or MP4.",
    "models": "`PATH`: a folder, a single file, or a hub name that is in the cache.",
    "keys": "`FILE`: a file to create.",
    "completion": "`SHELL`: bash, zsh or fish.",
}
_GROUP = re.compile(r"\*\*(?P<title>[^*]+)\*\*:")
_OPTION = re.compile(r"\* `(?P<flags>-[^`]*)`(?:: (?P<help>.*?))?(?P<notes>(?: \*\[.*\]\*)*)")
_TYPES = {
    "STR": "text",
    "INT": "integer",
    "FLOAT": "number",
    "LORACHOICE...": "`NAME` or `NAME:SCALE`",
    "STR...": "list of texts",
    "PATH": "path",
}
_NOTE = re.compile(r"\*\[(default|choices): (.*?)\]\*")


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    group: str
    flags: tuple[str, ...]
    type: str
    help: str
    default: str
    choices: str

    @property
    def name(self) -> str:
        """The name in Python and YAML: `num_gpus` of `--num-gpus`."""
        return self.flags[0].removeprefix("--").replace("-", "_")

    @property
    def values(self) -> str:
        """The choices if there are any, otherwise the type."""
        return self.choices or _TYPES.get(self.type, self.type.lower()) or "true or false"

    @property
    def variable(self) -> str:
        return "MULTIMODAL_GEN_" + self.name.upper()


def options(command: str) -> list[Option]:
    """Return the options of a command in the order in which `--help` shows them."""
    return list(_parsed(app[command].generate_docs(output_format="markdown")))


def _parsed(text: str) -> Iterator[Option]:
    group = ""
    # A help text of several lines is one item.
    for line in re.sub(r"\n {2,}", " ", text).splitlines():
        if match := _GROUP.fullmatch(line):
            group = match["title"]
        elif match := _OPTION.fullmatch(line):
            notes = dict(_NOTE.findall(match["notes"]))
            default = notes.get("default", "").strip('"').replace("()", "")
            flags, kind = _flags_and_type(match["flags"])
            yield Option(group, flags, kind, match["help"] or "", default, notes.get("choices", ""))


def _flags_and_type(text: str) -> tuple[tuple[str, ...], str]:
    """Take apart `--lora LORACHOICE..., --empty-lora`; the last is no use to anybody."""
    words = [part.split() for part in text.split(",")]
    flags = tuple(first for first, *_ in words if not first.startswith("--empty-"))
    return flags, next((kind for _, *kinds in words for kind in kinds), "")


def command_reference() -> str:
    """Return usage, summary and options of every command."""
    return "\n\n".join(map(_command, _COMMANDS))


def _command(name: str) -> str:
    summary = app[name].help.strip()
    parts = [f"## `multimodal-gen {name}` {{ #{name} }}", summary]
    parts += [_ARGUMENTS[name]] if name in _ARGUMENTS else []
    found = options(name)
    for group in dict.fromkeys(option.group for option in found):
        rows = [
            (_flags(option), option.values, code(option.default), option.help)
            for option in found
            if option.group == group
        ]
        parts += [f"**{group}**", table(("option", "value", "default", "meaning"), rows)]
    return "\n\n".join(parts)


def _flags(option: Option) -> str:
    return ", ".join(map(code, option.flags))


def sampling_parameters() -> str:
    """Return a row for each declared sampling parameter."""
    rows = [
        (
            code(row.name),
            " ".join(filter(None, (row.type, f"({row.unit})" if row.unit else ""))),
            row.allowed,
            row.default,
            row.needs,
            row.help if row.over_http else f"{row.help} Not over HTTP.",
        )
        for row in reference_rows()
    ]
    return table(("parameter", "type", "allowed", "default", "needs", "meaning"), rows)


def server_arguments() -> str:
    """Return the options of `serve` by group, as flags and environment variables."""
    found = [option for option in options("serve") if option.name != "config"]
    parts = []
    for group in dict.fromkeys(option.group for option in found):
        rows = [
            (
                _flags(option),
                code(option.variable),
                option.values,
                code(option.default),
                option.help,
            )
            for option in found
            if option.group == group
        ]
        header = ("option", "environment variable", "value", "default", "meaning")
        parts += [f"## {group}", table(header, rows)]
    return "\n\n".join(parts)
