"""`multimodal-gen info`."""

from __future__ import annotations

import json as to_json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from multimodal_gen.entrypoints.cli.text_output import printable

if TYPE_CHECKING:
    from multimodal_gen.entrypoints.cli.prompts.origin import Origin


def info(
    *files: Annotated[str, Parameter(show_default=False)],
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Show the settings that images and videos were made with.

    PNG, JPEG, WebP, GIF and MP4 of this program, and images of programs that write AUTOMATIC1111's
    text. `generate --from FILE` makes it again.

    Parameters
    ----------
    files
        Images or videos.
    json
        Print JSON: an object, or a list of them for several files.
    """
    from multimodal_gen.entrypoints.cli.prompts.origin import origin_of
    from multimodal_gen.errors import InvalidRequest

    if not files:
        raise InvalidRequest("files", "", "name an image or a video, as in `info heart.png`")
    origins = [(file, origin_of("file", file)) for file in files]
    if json:
        described = [_described(file, origin) for file, origin in origins]
        shown = described[0] if len(files) == 1 else described
        print(to_json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        texts = [_text(file, origin) for file, origin in origins if origin]
        print("\n\n".join(texts), end="\n" if texts else "")
    nothing = [file for file, origin in origins if origin is None]
    for file in nothing:
        print(f"multimodal-gen: {file}: has no settings in its metadata", file=sys.stderr)
    return 1 if nothing else 0


def _described(file: str, origin: Origin | None) -> dict[str, Any]:
    if origin is None:
        return {"file": file, "writer": None}
    return {
        "file": file,
        "writer": origin.writer,
        "version": origin.version,
        "model": origin.model,
        "parameters": msgspec.to_builtins(origin.settings, str_keys=True),
        "pictures": list(origin.pictures),
    }


def _text(file: str, origin: Origin) -> str:
    rows: dict[str, Any] = {name.replace("_", " "): each for name, each in _settings(origin)}
    rows |= {"model": origin.model, "made by": _program(origin)}
    if origin.pictures:
        rows["made from"] = ", ".join(origin.pictures)
    width = max(map(len, rows))
    lines = [
        f"  {_shown(name):<{width}}  {_shown(value)}" for name, value in rows.items() if value != ""
    ]
    return "\n".join([file, *lines])


def _settings(origin: Origin) -> list[tuple[str, Any]]:
    """Those of size as one, and the prompts first."""
    settings = dict(origin.settings)
    for wide, high in (("width", "height"), ("Size-1", "Size-2")):
        if wide in settings and high in settings:
            settings["size"] = f"{settings.pop(wide)}x{settings.pop(high)}"
    return sorted(settings.items(), key=lambda item: "prompt" not in item[0].lower())


def _program(origin: Origin) -> str:
    own = origin.writer == "multimodal_gen"
    return f"multimodal_gen {origin.version}" if own else origin.version or origin.writer


def _shown(value: Any) -> str:
    values = value if isinstance(value, tuple | list) else (value,)
    line = " ".join(", ".join(map(str, values)).splitlines())
    return printable(line)
