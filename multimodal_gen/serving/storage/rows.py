"""Converts between records and rows of the ledger. A row that can't be read is a failed job."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import msgspec

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import GenerationFailed
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.records import FINAL, JobRecord, JobRequest

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
    name: msgspec.msgpack.Decoder(_TYPES[name]) for name in ("request", "error", "files")
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
}
"""What stands for a value that can't be read; None for others."""


def row_of(record: JobRecord) -> dict[str, Any]:
    return {name: packed(name, getattr(record, name)) for name in COLUMNS}


def packed(column: str, value: Any) -> Any:
    return msgspec.msgpack.encode(value) if column in _DECODERS else value


def record_of(row: sqlite3.Row | Mapping[str, Any]) -> JobRecord:
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
