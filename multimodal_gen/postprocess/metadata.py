"""Generation parameters in image and video files: written to metadata, and read back."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from multimodal_gen.client.request_handle import Output
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.reply import Evaluations
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess import infotext
from multimodal_gen.version import __version__

JSON_KEY = "multimodal_gen"
"""PNG text key of the JSON form; in JPEG and WebP it is in EXIF, in GIF and MP4 the comment."""
INFOTEXT_KEY = "parameters"
"""PNG text key of the line that AUTOMATIC1111's web UI and related tools read."""
IMAGE_DESCRIPTION, SOFTWARE, EXIF_IFD, USER_COMMENT = 0x010E, 0x0131, 0x8769, 0x9286


@dataclass(frozen=True)
class Recipe:
    """Parameters, model and input files that reproduce an output."""

    params: SamplingParams
    """All defaults filled in, and the seed of this one output."""
    model: str
    version: str = __version__
    pictures: tuple[str, ...] = ()
    """Names of its input images and video, which are not kept: image, image_2, …, mask."""
    revised_prompt: str | None = None
    """The prompt that was used, if it was enhanced."""
    evaluations: Evaluations | None = None
    """Numbers of evaluations that were computed, and extrapolated."""

    @classmethod
    def of(cls, req: Req, output: Output | None, model: str) -> Recipe:
        """Recipe of a request's output, if there is one already."""
        return cls(
            req.params,
            model,
            pictures=tuple(req.pictures),
            revised_prompt=None if output is None else output.revised_prompt,
            evaluations=None if output is None else output.evaluations,
        )

    def to_json(self) -> str:
        """Serialise as ASCII, which fits every container."""
        return json.dumps(msgspec.to_builtins(self))

    def infotext(self) -> str:
        """Format as AUTOMATIC1111's three parts: prompt, negative prompt, settings."""
        return infotext.write(self.params, self.model, self.version, self.revised_prompt)


def read_parameters(source: str | Path | bytes) -> Recipe:
    """Read the recipe in a PNG, JPEG, WebP, GIF or MP4 (a path, or its bytes).

    Raises InvalidRequest if it has none, OSError if the file can't be opened.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    shown = f"{len(data)} bytes" if isinstance(source, bytes) else str(source)
    text = _mp4_comment(data) if data[4:8] == b"ftyp" else _picture_comment(data, shown)
    try:
        return msgspec.json.decode(text, type=Recipe)
    except msgspec.DecodeError as error:
        raise InvalidRequest("source", shown, "has no parameters of multimodal_gen") from error


def read_infotext(data: bytes) -> str:
    """Read AUTOMATIC1111's text in a PNG, JPEG or WebP, written by any program; "" if there is
    none. Raises InvalidRequest if the data is not an image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            text = image.info.get(INFOTEXT_KEY)
            if isinstance(text, str):
                return text
            comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
            return _user_comment(comment) if isinstance(comment, bytes) else ""
    except Exception:
        # For crafted files Pillow raises exceptions of any type.
        allowed = "can't be read as a PNG, JPEG or WebP"
        raise InvalidRequest("image", f"{len(data)} bytes", allowed) from None


def _user_comment(comment: bytes) -> str:
    code, text = comment[:8], comment[8:]
    encoding = "utf-16-be" if code == b"UNICODE\0" else "utf-8"
    return text.decode(encoding, "replace")


def _picture_comment(data: bytes, shown: str) -> str | bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            found = image.info.get(JSON_KEY) or image.info.get("comment")
            found = found or image.getexif().get(IMAGE_DESCRIPTION)
            return found if isinstance(found, str | bytes) else ""
    except UnidentifiedImageError as error:
        raise InvalidRequest("source", shown, "must be a PNG, JPEG, WebP, GIF or MP4") from error


def _mp4_comment(data: bytes) -> str:
    import av

    with av.open(io.BytesIO(data)) as container:
        return container.metadata.get("comment", "")
