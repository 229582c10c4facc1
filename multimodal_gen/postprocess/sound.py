"""Sound of a result: as WAV, and as the AAC track of an MP4."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.container import OutputContainer
    from numpy.typing import NDArray

    from multimodal_gen.client.request_handle import Output

_BITS_PER_S = 96_000
"""Of AAC, for each channel; the encoder takes less at low rates."""
_LAYOUTS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class Sound:
    """`samples` float32 [channels, samples] of about -1 to 1, `rate` of them per second."""

    samples: NDArray[np.float32]
    rate: int

    @classmethod
    def of(cls, output: Output) -> Sound | None:
        """The sound of a result, if it has some."""
        if output.audio is None or output.audio_rate is None:
            return None
        return cls(output.audio, output.audio_rate)

    def described(self) -> dict[str, int]:
        """Format and length, for clients."""
        channels, samples = self.samples.shape
        return {"rate": self.rate, "channels": channels, "samples": samples}


def encode_wav(sound: Sound) -> bytes:
    """Encode as 16-bit PCM."""
    import numpy as np

    values = np.rint(np.clip(sound.samples, -1, 1) * 32767).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(len(values))
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(values.T.tobytes())
    return out.getvalue()


class SoundTrack:
    """The AAC track of an MP4, which is written along with its pictures."""

    def __init__(self, file: OutputContainer, sound: Sound) -> None:
        """Rates that AAC lacks are resampled to the next higher one that it has."""
        self._file, self._sound = file, sound
        self._layout = _LAYOUTS[len(sound.samples)]
        self._stream = file.add_stream("aac", _aac_rate(sound.rate), layout=self._layout)
        self._stream.bit_rate = _BITS_PER_S * len(sound.samples)
        self._written = 0

    def write_until(self, seconds: Fraction) -> None:
        """Write the samples up to a time, as silence where there are none."""
        until = round(seconds * self._sound.rate)
        self._file.mux(self._stream.encode(self._frame(self._written, until)))
        self._written = until

    def finish(self) -> None:
        self._file.mux(self._stream.encode())

    def _frame(self, first: int, end: int) -> av.AudioFrame:
        import av
        import numpy as np

        samples = np.clip(self._sound.samples[:, first:end], -1, 1)
        silence = end - first - samples.shape[1]
        frame = av.AudioFrame.from_ndarray(
            np.pad(samples, ((0, 0), (0, silence))), "fltp", self._layout
        )
        frame.sample_rate, frame.pts = self._sound.rate, first
        frame.time_base = Fraction(1, self._sound.rate)
        return frame


def _aac_rate(rate: int) -> int:
    import av

    rates = sorted(av.Codec("aac", "w").audio_rates or ())
    return next((each for each in rates if each >= rate), rates[-1])
