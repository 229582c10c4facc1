"""Sound becomes the track of a video, or a file of its own."""

from __future__ import annotations

import io
import itertools
import logging
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from sounds import chirp, likeness, sound_in

from multimodal_gen import GenerationResult, SamplingParams
from multimodal_gen.client.request_handle import Output
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.postprocess.metadata import Recipe, read_parameters
from multimodal_gen.postprocess.sound import Sound, encode_wav
from multimodal_gen.postprocess.video import encode_mp4

FPS = 24
FRAMES = np.zeros((36, 16, 32, 3), np.uint8)
SECONDS = len(FRAMES) / FPS
RECIPE = Recipe(SamplingParams(prompt="a bell", seed=1), "model")


@pytest.mark.parametrize(
    ("rate", "channels", "written"),
    [(48_000, 2, 48_000), (24_000, 1, 24_000), (44_100, 2, 44_100), (15_000, 1, 16_000)],
)
def test_an_mp4_has_the_sound_at_its_rate_or_the_next_higher_one(
    rate: int, channels: int, written: int
) -> None:
    track = sound_in(encode_mp4(FRAMES, FPS, RECIPE, chirp(SECONDS, rate, channels)))
    wanted = chirp(SECONDS, written, channels)
    assert track.rate == written
    assert track.samples.shape == wanted.samples.shape
    assert likeness(track.samples, wanted.samples) > 0.99


def test_a_rate_above_those_of_aac_becomes_its_highest() -> None:
    assert sound_in(encode_mp4(FRAMES, FPS, None, chirp(SECONDS, 192_000))).rate == 96_000


def test_pictures_and_parameters_are_the_same_with_sound() -> None:
    def seen(file: bytes) -> list[bytes]:
        with av.open(io.BytesIO(file)) as container:
            return [bytes(packet) for packet in container.demux(video=0)]

    silent, loud = encode_mp4(FRAMES, FPS, RECIPE), encode_mp4(FRAMES, FPS, RECIPE, chirp(2, 8000))
    assert seen(silent) == seen(loud)
    assert read_parameters(loud) == RECIPE


@pytest.mark.parametrize("seconds", [0.5, 1.5, 4.0])
def test_sound_lasts_as_long_as_the_pictures(seconds: float) -> None:
    given = chirp(seconds, 16_000)
    track = sound_in(encode_mp4(FRAMES, FPS, None, given)).samples
    assert track.shape[1] == round(SECONDS * 16_000)
    heard = min(track.shape[1], given.samples.shape[1])
    assert likeness(track[:, :heard], given.samples[:, :heard]) > 0.99
    assert np.abs(track[:, heard + 2048 :]).max(initial=0) < 1e-3  # two frames of AAC later


def test_pictures_and_sound_are_interleaved() -> None:
    long = np.zeros((480, 16, 16, 3), np.uint8)
    file = encode_mp4(long, FPS, None, chirp(20, 8000))
    with av.open(io.BytesIO(file)) as container:
        packets = [(p.stream.type, p.pos) for p in container.demux() if p.pos is not None]
    kinds = [kind for kind, _ in sorted(packets, key=lambda packet: packet[1])]
    runs = [len(list(run)) for _, run in itertools.groupby(kinds)]
    assert max(runs) < len(kinds) / 4


def test_the_same_sound_gives_the_same_file_always() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 72_000)).astype(np.float32)
    assert len({encode_mp4(FRAMES, FPS, RECIPE, Sound(noise, 48_000)) for _ in range(4)}) == 1


def test_too_loud_sound_is_clipped_not_wrapped() -> None:
    loud = Sound(np.array([[-3.0, -1.0, 0.5, 3.0]], np.float32), 8000)
    with wave.open(io.BytesIO(encode_wav(loud))) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 8000)
        values = np.frombuffer(file.readframes(4), "<i2")
    assert values.tolist() == [-32767, -32767, 16384, 32767]


def result(sound: Sound | None, frames: int = 36) -> GenerationResult:
    output = Output("", FRAMES[:frames], seed=1, fps=FPS, timings={}, batch_sizes=[])
    if sound is not None:
        output = Output(**{**vars(output), "audio": sound.samples, "audio_rate": sound.rate})
    return GenerationResult((output,), SamplingParams(prompt="a bell", fps=FPS), "model")


def test_a_result_has_its_sound_as_it_came() -> None:
    sound = chirp(1, 16_000)
    assert result(sound).audio is sound.samples
    assert result(sound).audio_rate == 16_000
    assert (result(None).audio, result(None).audio_rate) == (None, None)


def test_a_result_is_saved_with_its_sound_or_the_sound_alone(tmp_path: Path) -> None:
    sound = chirp(SECONDS, 16_000)
    (video,) = result(sound).save(tmp_path / "bell.mp4")
    assert likeness(sound_in(video.read_bytes()).samples, sound.samples) > 0.99
    (alone,) = result(sound).save(tmp_path / "bell.wav")
    with wave.open(str(alone)) as file:
        values = np.frombuffer(file.readframes(99_999), "<i2").reshape(-1, 2).T
    assert np.abs(values / 32767 - sound.samples).max() < 1e-4


def test_a_gif_has_no_sound_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result(None).save(tmp_path / "bell.gif")
        assert caplog.messages == []
        result(chirp(1, 8000)).save(tmp_path / "bell.gif")
    assert caplog.messages == [
        "the sound is left out, as a .gif file has none: use .mp4 to keep it"
    ]


def test_only_what_has_sound_is_saved_as_sound(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"a video must end in \.mp4, \.gif, or"):
        result(None).save(tmp_path / "bell.wav")
