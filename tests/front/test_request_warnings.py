"""Warnings about requests: as text, as plain data, and as older servers stored them."""

from __future__ import annotations

import msgspec

from multimodal_gen.messages.request_warning import RequestWarning, as_plain, from_plain
from multimodal_gen.serving.records import JobRecord, JobRequest

CUT = RequestWarning("prompt_cut", "prompt", "prompt: cut")
PLAIN = {"code": "prompt_cut", "field": "prompt", "text": "prompt: cut"}


def test_a_warning_is_shown_as_its_text() -> None:
    assert (str(CUT), f"{CUT}") == ("prompt: cut", "prompt: cut")


def test_warnings_are_plain_data_each_once_and_back() -> None:
    assert as_plain([CUT, CUT]) == [PLAIN]
    assert from_plain([PLAIN]) == [CUT]


def test_a_field_without_effect_is_named_first() -> None:
    text = str(RequestWarning.no_effect("fps", "a picture has no frame rate"))
    assert text == "fps has no effect: a picture has no frame rate"


def test_texts_of_jobs_that_an_older_server_stored_are_warnings_of_no_field() -> None:
    stored = msgspec.json.encode({"requests": [], "meta": {"warnings": ["it is old"]}})
    request = msgspec.json.decode(stored, type=JobRequest)
    record = JobRecord(id="a", kind="image", owner="", model="m", request=request)
    assert record.warnings == [RequestWarning("other", None, "it is old")]
