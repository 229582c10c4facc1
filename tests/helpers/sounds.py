"""Sound for tests: made by formula, and read from files."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray

from multimodal_gen.postprocess.sound import Sound


def chirp(seconds: float, rate: int, channels: int = 2) -> Sound:
    """Tones that rise, each channel from another note."""
    time = np.arange(round(seconds * rate)) / rate
    notes = [330.0 * (1 + channel) * time * (1 + 0.2 * time) for channel in range(channels)]
    return Sound((0.5 * np.sin(2 * np.pi * np.stack(notes))).astype(np.float32), rate)


def sound_in(mp4: bytes) -> Sound:
    """The decoded track, cut to the length that the file gives it."""
    with av.open(io.BytesIO(mp4)) as file:
        stream = file.streams.audio[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        length = round(stream.duration * stream.time_base * stream.rate)
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
    return Sound(np.concatenate(frames, axis=1)[:, :length], stream.rate)


def likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Correlation of two sounds of one length."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
