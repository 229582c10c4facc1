"""Names and formats of output files, and atomic writing."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.postprocess.images import QUALITY, ImageFormat, encode_image
from multimodal_gen.postprocess.sound import Sound, encode_wav
from multimodal_gen.postprocess.video import encode_gif, encode_mp4

if TYPE_CHECKING:
    from multimodal_gen.client.request_handle import Output
    from multimodal_gen.postprocess.metadata import Recipe

_PICTURES: dict[str, ImageFormat] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}
_VIDEOS = (".mp4", ".gif")
_SOUND = ".wav"
_NUMBERED = re.compile(r"(\d{5,})\.\w+")
_FPS = 16


class OutputWriter(Protocol):
    """The place where outputs go, each by its number among all."""

    def write(self, index: int, output: Output, recipe: Recipe | None) -> Path:
        """Encode and write output `index`; returns its path."""

    def warnings(self, output: Output) -> tuple[RequestWarning, ...]:
        """Parts of the output that its file does not have."""


@dataclass(frozen=True)
class Destination:
    """Output paths for `count` outputs.

    A path with a known suffix is a file, which is overwritten; with several outputs, output i goes
    to `name-i.suffix`. Any other path is a folder, in which outputs get the next free numbers.
    """

    path: Path
    count: int
    video: bool
    first: int | None = None
    """Number of the first output in a folder; None if `path` is a file."""

    @classmethod
    def of(
        cls,
        path: str | Path,
        *,
        count: int,
        video: bool,
        sound: bool = False,
        field: str = "output_path",
    ) -> Destination:
        """`sound`: outputs have some. Raises InvalidRequest, which names `field`, if the suffix
        does not suit this kind of output."""
        named, path = str(path), Path(path)
        folder = is_folder(named)
        suffixes = (*(_VIDEOS if video else _PICTURES), *((_SOUND,) if sound else ()))
        if not folder and path.suffix.lower() not in suffixes:
            raise _wrong_suffix(field, named, "a video" if video else "a picture", suffixes)
        return cls(path, count, video, _next_number(path) if folder else None)

    def write(self, index: int, output: Output, recipe: Recipe | None) -> Path:
        """Encode and write output `index`; returns its path."""
        if self.first is not None:
            return self._write_numbered(self.first + index, output, recipe)
        numbered = f"-{index}" if self.count > 1 else ""
        path = self.path.with_name(self.path.stem + numbered + self.path.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode_file(output, path.suffix.lower(), recipe))
        return path

    def warnings(self, output: Output) -> tuple[RequestWarning, ...]:
        """Parts of the output that its file does not have."""
        suffix = self.path.suffix.lower() if self.first is None else ".mp4"
        return () if output.audio is None else sound_warnings(suffix)

    def _write_numbered(self, number: int, output: Output, recipe: Recipe | None) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        suffix = ".mp4" if self.video else ".png"
        encoded = encode_file(output, suffix, recipe)
        while True:
            path = self.path / f"{number:05d}{suffix}"
            try:
                path.open("x").close()  # reserves the name, also against other processes
            except FileExistsError:
                number += 1
                continue
            write_atomically(path, encoded)
            return path


def encode_file(
    output: Output, suffix: str, recipe: Recipe | None, quality: int = QUALITY
) -> bytes:
    """Encode an image, a video or its sound in the format that `suffix` names. `quality` only
    affects JPEG and WebP."""
    sound, fps = Sound.of(output), output.fps or _FPS
    if output.file is not None and suffix == ".mp4":
        return output.file
    if suffix == ".mp4":
        return encode_mp4(output.pixels, fps, recipe, sound)
    if suffix == ".gif":
        return encode_gif(output.pixels, fps, recipe)
    if suffix == _SOUND and sound is not None:
        return encode_wav(sound)
    return encode_image(output.pixels[0], _PICTURES[suffix], recipe, quality)


def sound_warnings(suffix: str) -> tuple[RequestWarning, ...]:
    """Warnings about the sound of an output that is written in the format that `suffix` names."""
    if suffix in (".mp4", _SOUND):
        return ()
    text = f"the sound is left out, as a {suffix} file has none: use .mp4 to keep it"
    return (RequestWarning("sound_left_out", None, text),)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write the file atomically: readers never see a part of it. The umask is taken off `mode`."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_suffix(path: str) -> None:
    """Raise InvalidRequest if `path` can be neither an image, a video, sound nor a folder."""
    suffixes = (*_PICTURES, *_VIDEOS, _SOUND)
    if not is_folder(path) and Path(path).suffix.lower() not in suffixes:
        raise _wrong_suffix("output_path", path, "an output", suffixes)


def check_writable(path: str) -> None:
    """Raise InvalidRequest if the existing part of `path` can't be written to.

    Called before generating, so that no work is lost.
    """
    folder = Path(path) if is_folder(path) else Path(path).parent
    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        allowed = f"{folder} is not a writable folder"
        raise InvalidRequest("output_path", path, allowed) from error


def is_folder(path: str) -> bool:
    """True if outputs get numbers in a folder of this path; else it is a file's."""
    return path.endswith(os.sep) or not Path(path).suffix or Path(path).is_dir()


def _wrong_suffix(field: str, path: str, kind: str, suffixes: tuple[str, ...]) -> InvalidRequest:
    allowed = f"{kind} must end in {', '.join(suffixes)}, or be a folder"
    return InvalidRequest(field, path, allowed)


def _next_number(folder: Path) -> int:
    names = os.listdir(folder) if folder.is_dir() else []
    taken = [int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))]
    return max(taken, default=-1) + 1
