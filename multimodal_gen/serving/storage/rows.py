"""Converts between records and rows of the ledger. A row that can't be read is a failed job."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import msgspec

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import GenerationFailed
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.records import FINAL, JobKind, JobRecord, JobRequest, JobSearch
from multimodal_gen.serving.storage.ledger import StoredFiles

_MOST_WORDS = 32
Row = sqlite3.Row | Mapping[str, Any]
COLUMNS = tuple(field.name for field in fields(JobRecord))
_Time = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]
_TYPES: dict[str, Any] = get_type_hints(JobRecord) | {
    "created_at": _Time,
    "started_at": _Time | None,
    "completed_at": _Time | None,
    "expires_at": _Time | None,
    "progress": Annotated[int, msgspec.Meta(ge=0, le=100)],
}
_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(_TYPES[name]) for name in ("request", "error", "files", "starred")
}
"""Columns that hold msgpack."""
_CHECKS = {
    name: msgspec.defstruct(name, [(name, kind)])
    for name, kind in _TYPES.items()
    if name not in _DECODERS
}
"""Other columns, each as a type of its own: those are parsed only once."""
_IN_PLACE: dict[str, Any] = {
    "id": "",
    "kind": "image",
    "owner": "",
    "model": "",
    "request": JobRequest([Req(id="", params=SamplingParams())]),
    "created_at": 0.0,
    "status": "failed",
    "progress": 0,
    "files": (),
    "starred": (),
}
"""What stands for a value that can't be read; None for others."""


def row_of(record: JobRecord) -> dict[str, Any]:
    row = {name: packed(name, getattr(record, name)) for name in COLUMNS}
    return {**row, "words": words_of(record.request)}


def words_of(request: JobRequest) -> str:
    """Return what a search looks in: the prompt, without differences of case."""
    return searchable(request.requests[0].params.prompt)


def searchable(text: str) -> str:
    return text.casefold().replace("\0", " ").encode("utf-8", "replace").decode()


def words_in(stored: bytes) -> str:
    """Return `words_of` a stored request; empty if that can't be read."""
    try:
        request = _DECODERS["request"].decode(stored)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return ""
    return words_of(request) if request.requests else ""


def starred_in(rows: Iterable[Row]) -> set[str]:
    """Return starred outputs, each JOB-INDEX, of rows with id and starred."""
    found: set[str] = set()
    for row in rows:
        with contextlib.suppress(msgspec.MsgspecError, TypeError):
            found.update(f"{row['id']}-{index}" for index in _unpacked("starred", row["starred"]))
    return found


def stored_files_of(rows: Iterable[Row]) -> list[StoredFiles]:
    """Return the files of rows with id, files, completed_at and expires_at; rows that can't be
    read are left out."""
    found = []
    for row in rows:
        with contextlib.suppress(msgspec.MsgspecError, ValueError, TypeError):
            values = [
                _unpacked(name, row[name]) for name in ("files", "completed_at", "expires_at")
            ]
            found.append(StoredFiles(row["id"], *values))
    return found


def tests_of(
    owner: str | None, kind: JobKind | None, search: JobSearch, mark: str, contains: str
) -> list[tuple[str, Any]]:
    """Return conditions of SQL and their values. `mark` stands for a parameter, and `contains` is
    a function of a text and a part of it."""
    wanted: list[tuple[str, Any]] = [
        (f"owner = {mark}", owner),
        (f"kind = {mark}", kind),
        (f"model = {mark}", search.model),
        (f"created_at >= {mark}", search.since),
        (f"created_at < {mark}", search.before),
        (f"starred <> {mark}", packed("starred", ()) if search.starred else None),
    ]
    words = searchable(search.words).split()[:_MOST_WORDS]
    wanted += [(f"{contains}(words, {mark}) > 0", word) for word in words]
    return [(test, value) for test, value in wanted if value is not None]


def packed(column: str, value: Any) -> Any:
    return msgspec.msgpack.encode(value) if column in _DECODERS else value


def record_of(row: Row) -> JobRecord:
    """The record; with the reason as its error, and failed unless it had ended, where columns
    can't be read."""
    values, reasons = {}, []
    for name in COLUMNS:
        try:
            values[name] = _unpacked(name, row[name])
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            values[name] = _IN_PLACE.get(name)
            reasons.append(f"{name}: {error}")
    if not values["request"].requests:
        values["request"] = _IN_PLACE["request"]
        reasons.append("request: it is empty")
    return _failed(values, reasons) if reasons else JobRecord(**values)


def _unpacked(column: str, value: Any) -> Any:
    if column in _DECODERS:
        return _DECODERS[column].decode(value)
    return getattr(msgspec.convert({column: value}, _CHECKS[column]), column)


def _failed(values: dict[str, Any], reasons: list[str]) -> JobRecord:
    if values["status"] not in FINAL:
        values["status"] = "failed"
    if values["error"] is None:
        reason = f"its stored record can't be read: {'; '.join(reasons)}"
        values["error"] = WireError.of(GenerationFailed(reason))
    return JobRecord(**values)
