"""Frames of an LTX-2 video that are given as images: the first, and the last."""

from __future__ import annotations

import math
from io import BytesIO

import av
import numpy as np
import PIL.Image
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.vaes.input_images import InputImage
from multimodal_gen.runtime.pipelines.latents.layout import size_of
from multimodal_gen.runtime.pipelines.latents.with_sound import LatentsWithSound
from multimodal_gen.runtime.stages.request_state import RequestState

_CRF = 33
"""Quality of the videos from which the frames were taken that the model learned from."""
_STRETCHED = VaeImageProcessor(vae_scale_factor=1, resample="bilinear")

NOISY = "noisy"
"""Conditioning [1, G]: 0 for groups of the video's tokens that are given, 1 for others. The groups
are all tokens, or the first frame's and the others', and then a last frame's."""


class GivenFrames:
    """Puts the given frames of a request among its latents, which then keep them.

    The first frame takes the place of the first latent frame. The last one, whose place in the
    latents belongs to several frames, follows the video's tokens.
    """

    def __init__(self, layout: LatentsWithSound) -> None:
        self._layout = layout

    def added(self, state: RequestState) -> int:
        """Tokens that follow those of the video."""
        return math.prod(self._frame(state)) if "last_image" in state.pictures else 0

    def _frame(self, state: RequestState) -> tuple[int, ...]:
        return self._layout.grid(state.params)[1:]

    def prepare(self, state: RequestState, solver: Solver) -> None:
        """Set the latents, and conditioning `noisy` of all branches."""
        layout, params, groups = self._layout, state.params, [1.0]
        if state.clean is not None:
            noise = layout.noise_of_tokens(params, state.generator, 0)
            latents = solver.add_noise(state.clean, noise, state.evaluation)
        elif "image" not in state.pictures:
            latents = layout.noise(params, state.generator)
        elif "last_image" in state.pictures:
            latents, groups = self._between(state), [0.0, 1.0, 0.0]
        else:
            first = self._encoded(
                _stretched(_compressed(state.pictures["image"]), *size_of(params))
            )
            noise, groups = layout.noise(params, state.generator), [0.0, 1.0]
            latents = torch.cat((first, noise[:, first.shape[1] :]), dim=1)
        state.latents = solver.init_noise(latents)
        noisy = tensor_of(groups, layout.device)[None]
        for conditioning in state.conditioning.values():
            conditioning[NOISY] = noisy

    def _between(self, state: RequestState) -> Tensor:
        """Noise with the first frame, and the last one after it."""
        params = state.params
        tokens, frame = self._layout.tokens(params), math.prod(self._frame(state))
        first, last = (
            self._encoded(_cropped(_compressed(state.pictures[name]), *size_of(params)))
            for name in ("image", "last_image")
        )
        noise = self._layout.noise_of_tokens(params, state.generator, frame)
        between, after = noise[:, frame:tokens], noise[:, tokens + frame :]
        return torch.cat((first, between, last, after), dim=1)

    def _encoded(self, pixels: Tensor) -> Tensor:
        """Tokens [1, h * w, C] of pixels [1, 3, H, W] in -1..1."""
        return self._layout.encode(pixels.unsqueeze(2))

    def kept(self, state: RequestState) -> Tensor | None:
        """True for tokens that are given, [1, S, 1]; None if there are none."""
        if "image" not in state.pictures:
            return None
        tokens, frame = self._layout.tokens(state.params), math.prod(self._frame(state))
        _, latents = state.running()
        at = torch.arange(latents.shape[1], device=latents.device)
        kept = (at < frame) | ((at >= tokens) & (at < tokens + self.added(state)))
        return kept[None, :, None]


def _compressed(picture: InputImage) -> InputImage:
    """The picture as a frame of a compressed video; its sides become even."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    if not height or not width:
        return picture
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as video:
        options = {"crf": str(_CRF), "preset": "veryfast"}
        stream = video.add_stream("libx264", rate=1, options=options)
        stream.height, stream.width = height, width
        pixels = np.ascontiguousarray(picture[:height, :width])
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        video.mux(stream.encode(frame))
        video.mux(stream.encode())
    with av.open(BytesIO(buffer.getvalue()), "r") as compressed:
        return next(compressed.decode(video=0)).to_ndarray(format="rgb24")


def _stretched(picture: InputImage, height: int, width: int) -> Tensor:
    """uint8 [h, w, 3] -> [1, 3, height, width] in -1..1, as the reference fits a first frame."""
    pixels: Tensor = _STRETCHED.preprocess(PIL.Image.fromarray(picture), height, width)
    return pixels


def _cropped(picture: InputImage, height: int, width: int) -> Tensor:
    """The same with its own aspect ratio, cut to its middle, as the reference fits both frames."""
    factor = max(height / picture.shape[0], width / picture.shape[1])
    size = [math.ceil(side * factor) for side in picture.shape[:2]]
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear")
    top, left = ((side - wanted) // 2 for side, wanted in zip(size, (height, width), strict=True))
    return pixels[:, :, top : top + height, left : left + width] / 127.5 - 1
