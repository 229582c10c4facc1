"""Names of a command's output files."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.options.hyphens import STANDARD
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.postprocess.files import (
    Destination,
    OutputWriter,
    check_suffix,
    check_writable,
    encode_file,
    is_folder,
    sound_warnings,
    write_atomically,
)

if TYPE_CHECKING:
    from multimodal_gen.client.request_handle import Output
    from multimodal_gen.messages.request_warning import RequestWarning
    from multimodal_gen.postprocess.metadata import Recipe

FIELD = "output_path"
_FIELDS = ("prompt", "seed", "index")
_LONGEST_SLUG = 60
_NOT_IN_SLUGS = re.compile(r"[^\w]+")


def outputs_of(
    path: str, resolved: Sequence[SamplingParams], *, force: bool, video: bool, sound: bool
) -> OutputWriter:
    """The outputs of requests whose parameters are resolved. Raises InvalidRequest."""
    if path == STANDARD:
        return StandardOutput.of(resolved, video=video)
    count = sum(params.num_outputs_per_prompt for params in resolved)
    if not _is_template(path) and is_folder(path):
        return Destination.of(path, count=count, video=video, sound=sound)
    written = _with_suffix(path, ".mp4" if video else ".png")
    Destination.of(written, count=count, video=video, sound=sound)  # checks the suffix
    names = tuple(map(Path, _names(written, resolved)))
    if not force:
        _refuse_existing(path, names)
    return NamedFiles(names, force)


def check_outputs(
    path: str, requests: Sequence[SamplingParams], *, force: bool, images: bool
) -> None:
    """Check what can be told before models are loaded: the suffix, whether the folder can be
    written to, and whether a file is there already. `images`: the model makes nothing else. Raises
    InvalidRequest."""
    if path == STANDARD:
        StandardOutput.of(requests, video=False)
        return
    template = _is_template(path)
    if template:
        _filled(path, "", 0, 0)
    elif not path:
        raise InvalidRequest(FIELD, path, "must name a file or a folder")
    written = _with_suffix(path, ".png")
    check_suffix(written)
    if images:
        Destination.of(written, count=1, video=False)
    check_writable(written.partition("{")[0] if template else path)
    if force or (not template and is_folder(path)):
        return
    known = "{seed" not in path or all(each.seed is not None for each in requests)
    if known:
        _refuse_existing(path, [Path(name) for name in _names(written, requests)])


@dataclass(frozen=True)
class NamedFiles:
    """A file name per output."""

    names: Sequence[Path]
    force: bool

    def write(self, index: int, output: Output, recipe: Recipe | None) -> Path:
        path = self.names[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = encode_file(output, path.suffix.lower(), recipe)
        if not self.force:
            path = _reserved(path)
        write_atomically(path, encoded)
        return path

    def warnings(self, output: Output) -> tuple[RequestWarning, ...]:
        return () if output.audio is None else sound_warnings(self.names[0].suffix.lower())


class StandardOutput:
    """One image, as PNG, on standard output."""

    @classmethod
    def of(cls, requests: Sequence[SamplingParams], *, video: bool) -> StandardOutput:
        """Raises InvalidRequest unless it is one image, and there is a place for its bytes."""
        count = sum(params.num_outputs_per_prompt for params in requests)
        if video:
            raise InvalidRequest(FIELD, STANDARD, "takes an image; name a file for a video")
        if count != 1:
            allowed = f"takes one image, not {count}; name a folder or a file"
            raise InvalidRequest(FIELD, STANDARD, allowed)
        if sys.stdout.isatty():
            allowed = "standard output is a terminal: redirect it, or name a file"
            raise InvalidRequest(FIELD, STANDARD, allowed)
        return cls()

    def write(self, index: int, output: Output, recipe: Recipe | None) -> Path:
        sys.stdout.buffer.write(encode_file(output, ".png", recipe))
        sys.stdout.buffer.flush()
        return Path(STANDARD)

    def warnings(self, output: Output) -> tuple[RequestWarning, ...]:
        return ()


def _is_template(path: str) -> bool:
    return "{" in path or "}" in path


def _with_suffix(path: str, usual: str) -> str:
    """A template with a suffix, and with a name if it is a folder; another path as it is."""
    if not _is_template(path):
        return path
    if path.endswith("/"):
        return f"{path}{{index:05d}}{usual}"
    return path if Path(path).suffix else path + usual


def _names(path: str, requests: Sequence[SamplingParams]) -> list[str]:
    """A name per output; those that would be the same get the output's number."""
    outputs = [
        (params.prompt, 0 if params.seed is None else params.seed + j)
        for params in requests
        for j in range(params.num_outputs_per_prompt)
    ]
    template = _is_template(path)
    names = [
        _filled(path, prompt, seed, index) if template else path
        for index, (prompt, seed) in enumerate(outputs)
    ]
    counts = Counter(names)
    return [
        _numbered(Path(name), index) if counts[name] > 1 else name
        for index, name in enumerate(names)
    ]


def _filled(path: str, prompt: str, seed: int, index: int) -> str:
    values = {"prompt": slug(prompt), "seed": seed, "index": index}
    try:
        unknown = [name for name in _names_in(path) if name not in _FIELDS]
        if not unknown:
            return path.format(**values)
    except (ValueError, LookupError, AttributeError, OverflowError, MemoryError) as error:
        reason = str(error) or "a name would be too long"
        raise InvalidRequest(FIELD, path, f"is not a template: {reason}; {_ALLOWED}") from error
    raise InvalidRequest(FIELD, path, f"{{{unknown[0]}}} is unknown; {_ALLOWED}")


_ALLOWED = "use {prompt}, {seed} and {index}, and {{ for a brace"


def _names_in(path: str) -> Iterator[str]:
    return (name for _, name, _, _ in Formatter().parse(path) if name is not None)


def slug(prompt: str) -> str:
    """A prompt as part of a file name: its words in lower case, shortened, with hyphens."""
    words = _NOT_IN_SLUGS.sub("-", prompt.lower()).strip("-_")
    if len(words) > _LONGEST_SLUG:
        words = words[:_LONGEST_SLUG].rpartition("-")[0] or words[:_LONGEST_SLUG]
    return words or "untitled"


def _numbered(path: Path, number: int) -> str:
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def _refuse_existing(path: str, names: Sequence[Path]) -> None:
    for name in names:
        if name.exists() and not name.is_dir():
            allowed = f"{name} exists; --force overwrites it, and a folder (out/) numbers files"
            raise InvalidRequest(FIELD, path, allowed)


def _reserved(path: Path) -> Path:
    """Create `path`, or with a number if a file has appeared there meanwhile, which is kept."""
    number, name = 0, path
    while True:
        try:
            name.open("x").close()
        except FileExistsError:
            if name.is_dir():
                raise
            number += 1
            name = Path(_numbered(path, number))
        else:
            return name
