"""Bodies of HTTP requests for images and videos."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.entrypoints.cli.running.result_source import CheckedRequest
from multimodal_gen.messages.pictures import Pixels, control_names, images_of
from multimodal_gen.postprocess.images import encode_image

if TYPE_CHECKING:
    import numpy as np

_APART = ("num_outputs_per_prompt", "lora", "control", "upscale")


def image_request(request: CheckedRequest) -> tuple[str, dict[str, Any]]:
    """Path and body of a request for a job of images."""
    params, pixels = request.asked, request.pixels
    body = {
        **_parameters(params, pixels),
        "n": params.num_outputs_per_prompt,
        "output_format": "png",
        "run_in_background": True,
    }
    if "image" not in pixels:
        return "/v1/images/generations", body
    mask = {"mask": _data_url(pixels["mask"])} if "mask" in pixels else {}
    images = [_data_url(image) for image in images_of(pixels)]
    return "/v1/images/edits", {**body, "image": images, **mask}


def video_request(request: CheckedRequest) -> tuple[str, dict[str, Any]]:
    """Path and body of a request for a job of one video; an input video is sent as it is."""
    pixels = request.pixels
    body = _parameters(request.asked, pixels)
    if images := [_data_url(image) for image in images_of(pixels)]:
        body["input_reference"] = images
    for name in ("last_image", "mask"):
        if name in pixels:
            body[name] = _data_url(pixels[name])
    if request.video_path is not None:
        body["video"] = _encoded(user_path(request.video_path).read_bytes(), "video/mp4")
    return "/v1/videos", body


def _parameters(params: SamplingParams, pixels: Pixels) -> dict[str, Any]:
    given: dict[str, Any] = {
        name: value
        for name, parameter in PARAMETERS.items()
        if name not in _APART
        and not parameter.spec.local
        and (value := getattr(params, name)) != parameter.default
    }
    if "sigmas" in given:
        given["sigmas"] = list(given["sigmas"])
    if params.lora:
        given["lora"] = [asdict(choice) for choice in params.lora]
    if params.control:
        given["control"] = _controls(params, pixels)
    if params.upscale is not None:
        given["upscale"] = asdict(params.upscale)
    return given


def _controls(params: SamplingParams, pixels: Pixels) -> list[Mapping[str, Any]]:
    names = control_names(len(params.control))
    return [
        {**asdict(choice), "image": _data_url(pixels[name])}
        for name, choice in zip(names, params.control, strict=True)
    ]


def _data_url(image: np.ndarray[Any, Any]) -> str:
    """An image [H, W, 3] or a mask [H, W] as PNG, which loses nothing."""
    return _encoded(encode_image(image, "png"), "image/png")


def _encoded(file: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode('ascii')}"
