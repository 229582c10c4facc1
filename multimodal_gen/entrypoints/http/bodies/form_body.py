"""Parses forms from clients, with the same guarantees for their text as for JSON.

The whole body is in memory already, so it is split rather than scanned: a body full of half
boundaries would keep a streaming parser busy for a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import HTTPException
from python_multipart.multipart import parse_options_header

from multimodal_gen.entrypoints.http.bodies.json_body import Body, check_name, check_text

MAX_PARTS = 200
MAX_FIELD_BYTES = 32 * 2**20
"""Maximum size of a field that is not a file: it may be an image in base64."""
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_CHARSETS = (b"", b"utf-8", b"utf8", b"us-ascii")
_MAX_ESCAPES = 500_000
_MAX_BOUNDARY = 200
_MAX_HEADERS = 8192
_WINDOW = 2**20


@dataclass(frozen=True)
class FormFile:
    """A file in a form."""

    name: str
    content: bytes


FormField = tuple[str, str | FormFile]
"""Name and value."""


def parse_form(content_type: str, body: Body) -> list[FormField]:
    """Parse a form of one of the types in `FORMS`. Raises HTTPException for an invalid form, and
    InvalidRequest with the name of a field whose text is not Unicode."""
    kind, options = parse_options_header(content_type)
    if options.get(b"charset", b"").lower() not in _CHARSETS:
        raise _invalid("it must be UTF-8: leave out charset")
    if kind != FORMS[0].encode():
        return list(_checked(_unescaped(body)))
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise _invalid("content-type must have a boundary")
    return list(_checked(_parts(body, b"\r\n--" + boundary)))


def _checked(fields: Iterator[FormField]) -> Iterator[FormField]:
    for count, (name, value) in enumerate(fields):
        if count == MAX_PARTS:
            raise _invalid(f"it must have at most {MAX_PARTS} fields")
        check_name(name, (name,))
        check_text(value.name if isinstance(value, FormFile) else value, (name,))
        yield name, value


def _parts(body: Body, delimiter: bytes) -> Iterator[FormField]:
    """Split a multipart body (RFC 7578)."""
    # The first delimiter needs no line before it.
    start = -2 if body.startswith(delimiter[2:]) else _find(body, delimiter, 0)
    while not body.startswith(b"--", start + len(delimiter)):
        line = body.find(b"\r\n", start + len(delimiter), start + len(delimiter) + _MAX_HEADERS)
        blank = body.find(b"\r\n\r\n", line, line + _MAX_HEADERS) if line >= 0 else -1
        if blank < 0:
            raise _invalid("a part has no headers, or long ones")
        start = _find(body, delimiter, blank + 2)
        yield _part(bytes(body[line:blank]), bytes(memoryview(body)[blank + 4 : start]))


def _part(headers: bytes, content: bytes) -> FormField:
    options = _disposition(headers)
    if b"name" not in options:
        raise _invalid("each part must have a content-disposition with a name")
    name = options[b"name"].decode("utf-8", "replace")
    if (file_name := options.get(b"filename")) is not None:
        return name, FormFile(file_name.decode("utf-8", "replace"), content)
    if len(content) > MAX_FIELD_BYTES:
        raise HTTPException(413, f"a field must have at most {MAX_FIELD_BYTES} bytes: send a file")
    # Bytes that are not UTF-8 are taken one by one, as browsers and servers of old do.
    try:
        return name, content.decode()
    except UnicodeDecodeError:
        return name, content.decode("latin-1")


def _disposition(headers: bytes) -> dict[bytes, bytes]:
    for line in headers.split(b"\r\n"):
        field, _, value = line.partition(b":")
        if field.strip().lower() == b"content-disposition":
            return parse_options_header(value.strip())[1]
    return {}


def _find(body: Body, delimiter: bytes, start: int) -> int:
    """Position of the next delimiter. Other threads have to wait while a window is searched."""
    for window in range(start, len(body), _WINDOW):
        found = body.find(delimiter, window, window + _WINDOW + len(delimiter) - 1)
        if found >= 0:
            return found
    raise _invalid("it has no end")


def _unescaped(body: Body) -> Iterator[FormField]:
    if body.count(b"%") > _MAX_ESCAPES:
        raise HTTPException(413, f"a form must have at most {_MAX_ESCAPES} escapes: use multipart")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_PARTS)
    except ValueError:
        raise _invalid(f"it must be UTF-8 with at most {MAX_PARTS} fields") from None
    yield from fields


def _invalid(why: str) -> HTTPException:
    return HTTPException(400, f"the body is not a valid form: {why}")
