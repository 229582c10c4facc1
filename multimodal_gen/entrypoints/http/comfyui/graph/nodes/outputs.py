"""Nodes that produce results."""

from __future__ import annotations

from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    Input,
    Meaning,
    NodeClass,
    choice,
    flag,
    integer,
    link,
    real,
    string,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    DecodedImages,
    SavedResult,
    VideoFormat,
    VideoValue,
)
from multimodal_gen.messages.model_info import ModelInfo


def outputs(model: ModelInfo) -> tuple[NodeClass, ...]:
    prefix = {"filename_prefix": string("ComfyUI")}
    fps = float(model.defaults.fps or 16)
    return (*_images(prefix), *_videos(prefix, fps))


def _images(prefix: dict[str, Input]) -> tuple[NodeClass, ...]:
    images = {"images": link("IMAGE")}
    advanced = {**images, **prefix, "format": Input("COMBO", choices=("png",), open=True)}
    return (
        _output("SaveImage", "Save Image", {**images, **prefix}, _save),
        _output("SaveImageAdvanced", "Save Image (Advanced)", advanced, _save_png),
        _output("PreviewImage", "Preview Image", images, _save),
        _output("SaveImageWebsocket", "SaveImageWebsocket", images, _save),
    )


def _videos(prefix: dict[str, Input], fps: float) -> tuple[NodeClass, ...]:
    images, video = {"images": link("IMAGE")}, {"video": link("VIDEO")}
    codec = {"format": choice("auto", "mp4"), "codec": choice("auto", "h264")}
    webp = {
        **images,
        **prefix,
        "fps": real(fps, 0.01, 1000.0),
        "lossless": flag(True),
        "quality": integer(80, 0, 100),
        "method": choice("default", "fastest", "slowest"),
    }
    sound = {"audio": link("AUDIO", optional=True)}
    combined = {
        **images,
        "frame_rate": real(fps, 1.0, 1000.0),
        "loop_count": integer(0, 0, 100),
        **prefix,
        "format": Input("COMBO", choices=tuple(_FORMATS), open=True),
        "pingpong": flag(False),
        "save_output": flag(True),
    }
    return (
        NodeClass(
            "CreateVideo",
            "Create Video",
            "image/video",
            {**images, "fps": real(fps, 1.0, 120.0), **sound},
            _create_video,
            ("VIDEO",),
        ),
        _output("SaveVideo", "Save Video", {**video, **prefix, **codec}, _save_video),
        _output(
            "SaveAnimatedWEBP",
            "SaveAnimatedWEBP",
            webp,
            _save_webp,
        ),
        _output("VHS_VideoCombine", "Video Combine", combined, _combine),
    )


_FORMATS = {"video/h264-mp4": ".mp4", "image/gif": ".gif", "image/webp": ".webp"}


def _output(name: str, title: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    return NodeClass(name, title, "image", inputs, meaning, is_output=True)


def _save(inputs: NodeInputs) -> tuple[object, ...]:
    if inputs.has("filename_prefix"):
        inputs.given("filename_prefix")
    return (SavedResult(inputs.linked("images", DecodedImages).sampled),)


def _save_png(inputs: NodeInputs) -> tuple[object, ...]:
    if inputs.peek("format") == "png":
        inputs.given("format")
    return _save(inputs)


def _create_video(inputs: NodeInputs) -> tuple[object, ...]:
    return (VideoValue(inputs.linked("images", DecodedImages).sampled, inputs.given("fps")),)


def _save_video(inputs: NodeInputs) -> tuple[object, ...]:
    inputs.given("filename_prefix"), inputs.given("format"), inputs.given("codec")
    video = inputs.linked("video", VideoValue)
    return (SavedResult(video.sampled, VideoFormat(".mp4", _frames_per_second(video.fps.value))),)


def _save_webp(inputs: NodeInputs) -> tuple[object, ...]:
    inputs.given("filename_prefix")
    fps = _frames_per_second(inputs.value("fps"))
    video = VideoFormat(".webp", fps, inputs.value("lossless"), inputs.value("quality"))
    return (SavedResult(inputs.linked("images", DecodedImages).sampled, video),)


def _combine(inputs: NodeInputs) -> tuple[object, ...]:
    inputs.given("filename_prefix")
    if inputs.peek("format") in _FORMATS:
        inputs.given("format")
    suffix = _FORMATS.get(inputs.peek("format"), ".mp4")
    video = VideoFormat(suffix, _frames_per_second(inputs.value("frame_rate")))
    sampled = inputs.linked("images", DecodedImages).sampled
    return (SavedResult(sampled, video, "gifs"),)


def _frames_per_second(given: float) -> int:
    return max(1, round(given))
