"""What a file says about how it was made, written into pictures and videos and read from them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from multimodal_gen import __version__
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest

JSON_KEY = "multimodal_gen"
"""PNG text key of the JSON form; JPEG and WebP keep it in EXIF, GIF and MP4 as the comment."""
INFOTEXT_KEY = "parameters"
"""PNG text key of the line that AUTOMATIC1111's web UI and its relatives read."""
IMAGE_DESCRIPTION, SOFTWARE, EXIF_IFD, USER_COMMENT = 0x010E, 0x0131, 0x8769, 0x9286

_SAMPLERS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "pndm": "PLMS",
    "euler": "Euler",
    "euler_a": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "flow_euler": "Euler",
    "flow_heun": "Heun",
    "unipc": "UniPC",
}


@dataclass(frozen=True)
class Recipe:
    """What has to be asked for again, and of which model, to get the same output."""

    params: SamplingParams
    """With every default filled in, and the seed of this one output."""
    model: str
    version: str = __version__

    def to_json(self) -> str:
        """ASCII, so that it fits every container."""
        return json.dumps(msgspec.to_builtins(self))

    def infotext(self) -> str:
        """The three-part text of AUTOMATIC1111: prompt, negative prompt, settings."""
        params = self.params
        lines = [params.prompt.replace("\0", "")]
        if params.negative_prompt:
            lines.append("Negative prompt: " + params.negative_prompt.replace("\0", ""))
        lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in self._settings()))
        return "\n".join(lines)

    def _settings(self) -> list[tuple[str, object]]:
        params = self.params
        embedded = params.true_cfg_scale is not None
        settings = {
            "Steps": params.num_inference_steps,
            "Sampler": _SAMPLERS.get(params.scheduler or "", params.scheduler),
            "CFG scale": params.true_cfg_scale if embedded else params.guidance_scale,
            "Distilled CFG Scale": params.guidance_scale if embedded else None,
            "Seed": params.seed,
            "Size": f"{params.width}x{params.height}",
            "Model": self.model,
            "Denoising strength": params.strength,
            "Version": f"multimodal_gen {self.version}",
        }
        return [(key, value) for key, value in settings.items() if value is not None]


def read_parameters(source: str | Path | bytes) -> Recipe:
    """The recipe that a PNG, JPEG, WebP, GIF or MP4 (a path, or its bytes) was written with.

    Raises InvalidRequest when it carries none, OSError when it can't be opened.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    shown = f"{len(data)} bytes" if isinstance(source, bytes) else str(source)
    text = _mp4_comment(data) if data[4:8] == b"ftyp" else _picture_comment(data, shown)
    try:
        return msgspec.json.decode(text, type=Recipe)
    except msgspec.DecodeError as error:
        raise InvalidRequest("source", shown, "carries no parameters of multimodal_gen") from error


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


def _quoted(value: object) -> str:
    text = str(value)
    if any(mark in text for mark in ',:\n"'):
        return json.dumps(text, ensure_ascii=False)
    return text
