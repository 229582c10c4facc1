"""Formats of files of prompts: text, CSV, a JSON list, JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from multimodal_gen.configs.parameters import NUMBERS
from multimodal_gen.configs.sampling_params import PARAMETERS
from multimodal_gen.errors import InvalidRequest

COMMENT = "#"
_SHOWN = 60
_NO_JSON = (msgspec.DecodeError, RecursionError)
"""What the parser raises; the second for a text that is nested too deep."""


class PromptEntry(NamedTuple):
    """One request of a file."""

    place: str
    """Where it stands: `prompts.txt:3` is the third line."""
    given: object
    """A prompt, or a mapping of parameters."""


Format = Callable[[str, str], Iterator[PromptEntry]]
"""Splits a text, of a file of this name, into entries. Raises InvalidRequest if it is of another
format."""
_FIELD = "prompt_path"


def lines(text: str, name: str) -> Iterator[PromptEntry]:
    """A prompt per line. Empty lines and those that begin with # are left out; a prompt can begin
    with \\#."""
    for place, line in _lines(text, name):
        yield PromptEntry(place, line.removeprefix("\\") if line.startswith("\\#") else line)


def json_lines(text: str, name: str) -> Iterator[PromptEntry]:
    """An object of parameters, or a prompt in quotes, per line."""
    for place, line in _lines(text, name):
        try:
            yield PromptEntry(place, msgspec.json.decode(line))
        except _NO_JSON as error:
            raise InvalidRequest(_FIELD, place, f"is not valid JSON: {error}") from error


def json_list(text: str, name: str) -> Iterator[PromptEntry]:
    """A list of prompts and objects of parameters, or one of these."""
    try:
        given = msgspec.json.decode(text)
    except _NO_JSON as error:
        raise InvalidRequest(_FIELD, name, f"is not valid JSON: {error}") from error
    for number, each in enumerate(given if isinstance(given, list) else [given], 1):
        yield PromptEntry(f"{name}[{number}]", each)


def table(text: str, name: str) -> Iterator[PromptEntry]:
    """CSV whose first line names parameters; an empty cell leaves its parameter unset."""
    kept = "\n".join("" if line.startswith(COMMENT) else line for line in text.splitlines())
    reader = csv.DictReader(io.StringIO(kept), skipinitialspace=True, strict=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        if "prompt" not in columns:
            shown = ", ".join(columns)[:_SHOWN]
            allowed = (
                "the first line must name parameters, one of them prompt, with commas between them,"
                f" not {shown!r}"
            )
            raise InvalidRequest(_FIELD, name, allowed)
        for row in reader:
            place = f"{name}:{reader.line_num}"
            yield PromptEntry(place, _cells(columns, [*row.values()], place))
    except csv.Error as error:
        place = f"{name}:{reader.line_num}"
        raise InvalidRequest(_FIELD, place, f"is not valid CSV: {error}") from error


FORMATS: Mapping[str, Format] = {
    ".txt": lines,
    ".csv": table,
    ".json": json_list,
    ".jsonl": json_lines,
}
"""By the suffix of a file's name."""


def format_of(suffix: str) -> Format:
    """Format of a file whose name has this suffix; by default a prompt per line."""
    return FORMATS.get(suffix.lower(), lines)


def format_seen(text: str) -> Format:
    """Format of a text without a name, by how it begins."""
    begin = text.lstrip()
    if begin.startswith("{"):
        return json_lines
    if begin.startswith("[") and _is_json(text):
        return json_list
    head = [name.strip() for name in begin.partition("\n")[0].split(",")]
    is_table = "prompt" in head and all(name in PARAMETERS for name in head)
    return table if is_table else lines


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except _NO_JSON:
        return False
    return True


def _lines(text: str, name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if (content := line.strip()) and not content.startswith(COMMENT):
            yield f"{name}:{number}", content


def _cells(columns: list[str], cells: list[Any], place: str) -> dict[str, Any]:
    if len(cells) > len(columns) or not all(isinstance(each, str) for each in cells):
        allowed = f"must have {len(columns)} cells; put a text that has commas in quotes"
        raise InvalidRequest(_FIELD, place, allowed)
    pairs = zip(columns, (cell.strip() for cell in cells), strict=True)
    return {name: _value(name, cell) for name, cell in pairs if cell}


def _value(name: str, cell: str) -> Any:
    """A cell as the type of its parameter; unknown parameters are refused later, by name."""
    parameter = PARAMETERS.get(name)
    if parameter is None or parameter.kind not in (int, float, bool, NUMBERS):
        return cell
    given: Any = cell.split() if parameter.kind == NUMBERS else cell
    try:
        return msgspec.convert(given, parameter.kind, strict=False)
    except msgspec.ValidationError:
        return cell  # which is refused as a value of this type
