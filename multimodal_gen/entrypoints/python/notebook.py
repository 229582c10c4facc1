"""Results in notebooks: pictures and videos with their seeds and settings."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from multimodal_gen.client.request_handle import Output, size_text
from multimodal_gen.postprocess.files import encode_file
from multimodal_gen.postprocess.images import encode_image, to_pil

if TYPE_CHECKING:
    import numpy as np

    from multimodal_gen.entrypoints.python.generation_result import GenerationResult

MAX_INLINE_BYTES = 16 * 2**20
"""Of a video or its sound; larger ones are shown by their first frame."""
MAX_SHOWN = 64
"""Outputs of one cell; a notebook with more becomes slow."""
_ALONE, _IN_GRID = 1024, 320
"""Longest side of a picture alone and of one among others, in pixels."""
_EXACT = 256
"""Longest side up to which a picture is shown with all its pixels as they are."""
_SHORT = 60
_FIGURE = "display:inline-block;margin:0 12px 12px 0;vertical-align:top;max-width:{width}px"
_CAPTION = "font-size:12px;line-height:1.4;overflow-wrap:anywhere"


def described(result: GenerationResult) -> str:
    """Prompt, size, seeds, steps and time in one line."""
    prompt = result.params.prompt
    shown = prompt if len(prompt) <= _SHORT else prompt[: _SHORT - 1] + "…"
    first, seeds = result.outputs[0].pixels.shape, result.seeds
    seed = f"seed={seeds[0]}" if len(seeds) == 1 else f"seeds={seeds}"
    return f"{shown!r}, {size_text(first[0], first[2], first[1])}, {seed}, {_timed(result)}"


def result_html(result: GenerationResult) -> str:
    """Pictures with captions; videos and sound can be played."""
    outputs = result.outputs[:MAX_SHOWN]
    side = _ALONE if len(outputs) == 1 else _IN_GRID
    figures = [_figure(result, output, side) for output in outputs]
    return _page(figures, len(result.outputs) - len(outputs), result.warnings)


def results_html(results: Sequence[GenerationResult]) -> str:
    """The same of several prompts, as a grid."""
    made = [(result, output) for result in results for output in result.outputs]
    side = _ALONE if len(made) == 1 else _IN_GRID
    figures = [_figure(result, output, side) for result, output in made[:MAX_SHOWN]]
    warnings = (warning for result in results for warning in result.warnings)
    return _page(figures, len(made) - len(figures), warnings)


def result_png(result: GenerationResult) -> bytes | None:
    """The pictures side by side; None for videos and sound."""
    import numpy as np

    outputs = result.outputs[:MAX_SHOWN]
    if any(len(output.pixels) != 1 for output in outputs):
        return None
    recipe = result.recipe() if len(outputs) == 1 else None
    return encode_image(np.hstack([output.pixels[0] for output in outputs]), "png", recipe)


def _page(figures: list[str], left_out: int, warnings: Iterable[object]) -> str:
    more = [f"<p>… and {left_out} more</p>"] if left_out else []
    texts = dict.fromkeys(map(str, warnings))
    noted = [f'<p style="{_CAPTION}">⚠ {escape(text)}</p>' for text in texts]
    return f"<div>{''.join((*figures, *more, *noted))}</div>"


def _figure(result: GenerationResult, output: Output, side: int) -> str:
    prompt = escape(result.params.prompt)
    shown = _media(output, prompt, side)
    settings = escape(_settings(result, output))
    width = min(side, max(_IN_GRID // 2, output.pixels.shape[2]))
    return (
        f'<figure style="{_FIGURE.format(width=width)}">{shown}'
        f'<figcaption style="{_CAPTION}">{prompt}<br><small>{settings}</small></figcaption>'
        "</figure>"
    )


def _media(output: Output, prompt: str, side: int) -> str:
    if len(output.pixels) == 1 and output.audio is None:
        return _image(output.pixels[0], prompt, side)
    if len(output.pixels) == 0:
        return _player("audio", "audio/wav", encode_file(output, ".wav", None), prompt)
    video = encode_file(output, ".mp4", None)
    if len(video) <= MAX_INLINE_BYTES:
        loop = "" if output.audio is not None else "loop "
        style = f'{loop}style="max-width:100%" width="{min(side, output.pixels.shape[2])}" '
        return _player("video", "video/mp4", video, prompt, style)
    return _image(output.pixels[0], prompt, side) + _too_large(video)


def _player(tag: str, kind: str, data: bytes, prompt: str, style: str = "") -> str:
    if len(data) > MAX_INLINE_BYTES:
        return _too_large(data)
    return f'<{tag} controls {style}title="{prompt}" src="{_url(kind, data)}"></{tag}>'


def _too_large(data: bytes) -> str:
    return f"<p>{len(data) / 1e6:.0f} MB: save it with result.save(path) to play it</p>"


def _image(pixels: np.ndarray[Any, Any], prompt: str, side: int) -> str:
    height, width = pixels.shape[:2]
    if max(height, width) <= _EXACT:
        kind, data = "image/png", encode_image(pixels, "png")
    else:
        picture, out = to_pil(pixels), io.BytesIO()
        picture.thumbnail((side, side))
        picture.save(out, "webp", quality=90)
        kind, data = "image/webp", out.getvalue()
        width = picture.width
    return f'<img alt="{prompt}" width="{width}" style="max-width:100%" src="{_url(kind, data)}">'


def _settings(result: GenerationResult, output: Output) -> str:
    params, pixels = result.params, output.pixels.shape
    guidance = params.guidance_scale
    facts = (
        f"seed {output.seed}",
        size_text(pixels[0], pixels[2], pixels[1]),
        f"{params.num_inference_steps} steps",
        f"guidance {guidance:g}" if guidance else "",
        params.scheduler or "",
        *map(str, params.lora),
        f"{output.timings['total']:.1f} s" if "total" in output.timings else "",
    )
    return " · ".join(filter(None, facts))


def _timed(result: GenerationResult) -> str:
    steps = f"{result.params.num_inference_steps} steps"
    seconds = result.timings.get("total")
    return steps if seconds is None else f"{steps}, {seconds:.1f} s"


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"
