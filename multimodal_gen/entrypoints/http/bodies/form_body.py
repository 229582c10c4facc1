"""Parses forms from clients, with the same guarantees for their text as for JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import HTTPException
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from multimodal_gen.entrypoints.http.bodies.json_body import check_name, check_text

MAX_FIELDS = 200
MAX_FILES = 20
MAX_FIELD_BYTES = 32 * 2**20
"""Maximum size of a field that is not a file: it may be an image in base64."""
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_CHARSETS = (b"", b"utf-8", b"utf8", b"us-ascii")
_SLICE = 2**16
T = TypeVar("T")


@dataclass(frozen=True)
class FormFile:
    """A file in a form."""

    name: str
    content: bytes


FormField = tuple[str, str | FormFile]
"""Name and value."""


def parse_form(content_type: str, body: bytes) -> list[FormField]:
    """Parse a form of one of the types in `FORMS`. Raises HTTPException for an invalid form, and
    InvalidRequest with the name of a field whose text is not Unicode."""
    kind, options = parse_options_header(content_type)
    if options.get(b"charset", b"").lower() not in _CHARSETS:
        raise HTTPException(400, "a form must be UTF-8: leave out charset")
    headers = Headers({"content-type": content_type})
    try:
        return _fields(_ran(_parsed(kind == FORMS[0].encode(), headers, body)))
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None


async def _parsed(multipart: bool, headers: Headers, body: bytes) -> FormData:
    if not multipart:
        form = FormParser(
            headers, _slices(body), max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        )
        return await form.parse()
    parts = MultiPartParser(
        headers,
        _slices(body),
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    parts.spool_max_size = len(body) + 1  # in memory, where the body is already
    return await parts.parse()


def _fields(form: FormData) -> list[FormField]:
    found: list[FormField] = []
    for name, value in form.multi_items():
        check_name(name, (name,))
        if isinstance(value, UploadFile):
            check_text(value.filename or "", (name,))
            found.append((name, FormFile(value.filename or "", value.file.read())))
            value.file.close()
        else:
            check_text(value, (name,))
            found.append((name, value))
    return found


async def _slices(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _SLICE):
        yield body[start : start + _SLICE]


def _ran(work: Coroutine[Any, Any, T]) -> T:
    """Result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a form in memory was waited for")
