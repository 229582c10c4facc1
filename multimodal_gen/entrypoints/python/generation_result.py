"""Results of calls of DiffusionGenerator."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from multimodal_gen.client.request_handle import Output, longest_timings, warnings_of
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.reply import Evaluations
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.postprocess.files import Destination, OutputWriter
from multimodal_gen.postprocess.images import to_pil
from multimodal_gen.postprocess.metadata import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

from multimodal_gen.entrypoints.python.notebook import (
    described,
    result_html,
    result_png,
    results_html,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Progress:
    """Progress of a call, for all of its outputs together."""

    step: int
    total: int
    eta: float | None
    """Estimated seconds left; None if unknown."""
    phase: str = ""
    """What is being done: enhance, encode, denoise or decode; empty while it waits."""
    preview: Image | None = None
    """Current estimate of the image; None unless requested and new, and for videos."""

    def __repr__(self) -> str:
        eta = "" if self.eta is None else f", {self.eta:.1f} s left"
        preview = "" if self.preview is None else ", with preview"
        return f"Progress({self.phase or 'waiting'}: {self.step} of {self.total}{eta}{preview})"


@dataclass(frozen=True, eq=False)
class GenerationResult:
    """Outputs of one prompt. A notebook shows them, with their seeds and settings."""

    outputs: tuple[Output, ...]
    """Outputs from the engine: each with pixels, seed, timings and batch sizes."""
    params: SamplingParams
    """The request, with all defaults filled in."""
    model: str
    pictures: tuple[str, ...] = ()
    """Names of the input images and video: image, image_2, …, last_image, mask, video."""

    def __repr__(self) -> str:
        return f"GenerationResult({described(self)})"

    def _repr_html_(self) -> str:
        return result_html(self)

    def _repr_png_(self) -> bytes | None:
        """Encode the outputs side by side, for viewers without HTML; None for videos."""
        return result_png(self)

    @property
    def images(self) -> list[Image]:
        """One image per output; for a video its frames, of the first one if there are several."""
        shown = self.outputs[:1] if self._is_video else self.outputs
        return [to_pil(frame) for output in shown for frame in output.pixels]

    @property
    def frames(self) -> NDArray[np.uint8] | None:
        """uint8 [F, H, W, 3] of the first video; None for images."""
        return self.outputs[0].pixels if self._is_video else None

    @property
    def fps(self) -> int | None:
        """Frames per second of a video; None for images."""
        return self.outputs[0].fps if self._is_video else None

    @property
    def audio(self) -> NDArray[np.float32] | None:
        """Sound of the first output, float32 [channels, samples] of about -1 to 1; None without."""
        return self.outputs[0].audio

    @property
    def audio_rate(self) -> int | None:
        """Samples of sound per second; None without sound."""
        return self.outputs[0].audio_rate

    @property
    def seeds(self) -> list[int]:
        """Seed of each output."""
        return [output.seed for output in self.outputs]

    @property
    def timings(self) -> dict[str, float]:
        """Seconds per phase; the maximum over outputs, which run in parallel."""
        return longest_timings(self.outputs)

    @property
    def batch_sizes(self) -> list[int]:
        """Number of requests that shared each evaluation of the first output."""
        return self.outputs[0].batch_sizes

    @property
    def evaluations(self) -> Evaluations | None:
        """Numbers of the first output's evaluations that were computed, and extrapolated."""
        return self.outputs[0].evaluations

    @property
    def warnings(self) -> tuple[RequestWarning, ...]:
        """Parts of the request that had no effect, or another than requested."""
        return warnings_of(self.outputs)

    @property
    def revised_prompt(self) -> str | None:
        """The prompt that was used, if it was enhanced."""
        return self.outputs[0].revised_prompt

    @property
    def prompt_notes(self) -> tuple[str, ...]:
        """Notes on how the prompts were read, if there is a `prompt_syntax`: chunks and weights."""
        return self.outputs[0].prompt_notes

    def recipe(self, index: int = 0) -> Recipe:
        """Recipe that reproduces output `index` alone."""
        params = replace(
            self.params, seed=self.outputs[index].seed, num_outputs_per_prompt=1, deadline_s=None
        )
        made = self.outputs[index]
        return Recipe(
            params,
            self.model,
            pictures=self.pictures,
            revised_prompt=made.revised_prompt,
            evaluations=made.evaluations,
        )

    def save(self, path: str | Path, *, metadata: bool = True) -> list[Path]:
        """Write every output atomically, and return the paths.

        `path` is a file (.png, .jpg, .jpeg, .webp; for a video .mp4, .gif; for sound alone .wav),
        which is overwritten; several outputs get -0, -1, … before the suffix. Or it is a folder,
        where they get the next free numbers. `metadata`: store the parameters in the file (see
        `read_parameters`; .wav has none). Raises InvalidRequest for another suffix, and OSError.
        """
        sound = self.audio is not None
        destination = Destination.of(
            path, count=len(self.outputs), video=self._is_video, sound=sound, field="path"
        )
        for warning in destination.warnings(self.outputs[0]):
            log.warning("%s", warning)
        return self.write_to(destination, 0, metadata)

    def write_to(self, destination: OutputWriter, first: int, metadata: bool) -> list[Path]:
        """Write the outputs as numbers `first`, `first + 1`, … of a destination."""
        return [
            destination.write(first + j, output, self.recipe(j) if metadata else None)
            for j, output in enumerate(self.outputs)
        ]

    @property
    def _is_video(self) -> bool:
        return len(self.outputs[0].pixels) > 1


class GenerationResults(list[GenerationResult]):
    """Results of a list of prompts, in its order. A notebook shows them as a grid."""

    if not TYPE_CHECKING:  # A type checker would take every name for an attribute.

        def __getattr__(self, name: str) -> NoReturn:
            hint = f": each of its results has, such as results[0].{name}"
            known = hint if hasattr(GenerationResult, name) else ""
            raise AttributeError(f"a list of results has no {name}{known}", name=name, obj=self)

    def _repr_html_(self) -> str:
        return results_html(self)
