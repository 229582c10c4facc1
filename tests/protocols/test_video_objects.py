"""Entries of a video's object that follow from what was made."""

from __future__ import annotations

import numpy as np

from multimodal_gen.client.request_handle import Output
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.openai.video_objects import video_of
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.records import JobRecord, JobRequest


def test_the_size_is_that_of_the_video_once_it_is_made() -> None:
    params = SamplingParams(prompt="a heart", width=32, height=16, num_frames=5, fps=8)
    request = JobRequest([Req(id="r", params=params)])
    record = JobRecord(id="j", kind="video", owner="anne", model="model", request=request)
    assert video_of(record, None)["size"] == "32x16"
    enlarged = Output("r", np.zeros((5, 32, 64, 3), np.uint8), 0, 8, {}, [])
    made = record.updated(request=request.answered([enlarged]))
    assert video_of(made, None)["size"] == "64x32"
