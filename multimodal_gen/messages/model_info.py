"""Properties and limits of a loaded model, as plain data: requests are checked without torch."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from multimodal_gen.configs.step_cache import Quality
from multimodal_gen.messages.model_defaults import Defaults as Defaults

MAX_SEED = 2**63 - 1

TaskName = Literal[
    "text-to-image",
    "image-to-image",
    "inpainting",
    "image-edit",
    "text-to-video",
    "image-to-video",
    "video-to-video",
    "reference-to-video",
]
"""image-to-image and inpainting start from an image, by strength; image-edit, image-to-video and
reference-to-video condition on images; video-to-video starts from a video or follows it."""

PictureSize = Literal["default", "own", "within", "area", "last"]
"""Output size of a request that has an image but no size. `default`: the model's default size;
`own`: the image's; `within`: the image's, scaled down to the default pixel count; `area`: the
image's shape at about the default pixel count; `last`: as `area`, of the last of several images.
Otherwise the first one counts."""


UpscaleWay = Literal["second-pass", "model", "latents"]
"""Ways to enlarge a result: generate from it once more, run a model of the operator's, or run one
on the latents and generate from those once more."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of requests: maxima, and the smallest number of frames."""

    max_pixels: int = 8192 * 4096
    """Of an image or video frame, however much memory there is."""
    max_volume: int | None = None
    """Pixels of a frame times latent frames that memory allows; None: not known."""
    max_side: int = 8192
    min_frames: int = 1
    max_frames: int = 1
    max_steps: int = 1000
    max_outputs: int = 16
    max_loras: int = 8
    max_controls: int = 4
    max_images: int = 1
    """Input images of one request, for a model that takes any; a last frame is not one of them."""
    max_sequence_length: int | None = None
    max_prompt_characters: int = 32_000
    smallest_side: int | None = None
    """Side that the checkpoint says it was trained for at least; smaller ones get a warning."""
    largest_side: int | None = None
    """Largest side of a first pass that the checkpoint says it can draw."""
    largest_aspect: float | None = None
    """Longer side divided by the shorter one, at most, as the checkpoint says."""


class StatedLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits that a checkpoint states in its generation_defaults.json."""

    smallest_side: Annotated[int, msgspec.Meta(ge=1)] | None = None
    largest_side: Annotated[int, msgspec.Meta(ge=1)] | None = None
    largest_aspect: Annotated[float, msgspec.Meta(ge=1)] | None = None
    max_sequence_length: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def within(self, limits: Limits) -> Limits:
        """Return `limits`, with those that are stated."""
        stated = {name: value for name, value in msgspec.structs.asdict(self).items() if value}
        return msgspec.structs.replace(limits, **stated)


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The model behind a server, as `Ready` reports it to clients."""

    name: str
    """Model name: a hub name or the last part of a path, as the operator gave it."""
    family: str
    tasks: tuple[TaskName, ...]
    defaults: Defaults
    limits: Limits
    size_multiple: int
    """Width and height must be multiples of it, in pixels."""
    picture_size: PictureSize = "area"
    last_image_alone: bool = False
    """A last frame needs no first one."""
    sound: bool = False
    """Its videos have sound."""
    frame_multiple: int = 1
    """num_frames must be `limits.min_frames` more than a multiple of it."""
    parameters: tuple[str, ...] = ()
    """Optional sampling parameters that this model supports."""
    no_effect: tuple[str, ...] = ()
    """Sampling parameters that it accepts, and that change nothing."""
    required: tuple[str, ...] = ()
    """Those of them that name an input that each request must have."""
    upscale_ways: tuple[UpscaleWay, ...] = ()
    """Ways in which its results can be enlarged."""
    schedulers: tuple[str, ...] = ()
    """Short names allowed for `scheduler`; the first is the checkpoint's own."""
    qualities: tuple[Quality, ...] = ("exact",)
    """Values allowed for `quality`."""
    noise_schedules: tuple[str, ...] = ()
    """Names allowed for `noise_schedule`; some solvers support only some of them."""
    warnings: tuple[str, ...] = ()
    """What this server does differently from the checkpoint's settings."""
    controls: tuple[str, ...] = ()
    """Names of controls that the checkpoint itself has; a request may choose no others."""
    lora_targets: tuple[str, ...] = ()
    """Components that a LoRA may apply to, the denoisers first."""
    residency: str = ""
    """Where its weights are; empty on a CPU."""
    sharing: str = ""
    """How its ranks share an evaluation, and why; empty with one rank."""
    dtype: str = "float32"
    device: str = "cpu"

    def __repr__(self) -> str:
        return f"ModelInfo({self.name!r}, family={self.family!r}, tasks={self.tasks})"

    @property
    def cfg_parameter(self) -> str:
        """Parameter that other programs' `cfg` stands for. Models that are guided only on request,
        by `true_cfg_scale`, are not by programs that always send a scale."""
        guided = (self.defaults.true_cfg_scale or 1) > 1
        return (
            "true_cfg_scale" if guided and "guidance_scale" in self.no_effect else "guidance_scale"
        )

    @property
    def makes_videos(self) -> bool:
        return any(task.endswith("-to-video") for task in self.tasks)

    @property
    def max_seed(self) -> int:
        """Maximum seed of a request, whose last output also needs a 64-bit seed."""
        return MAX_SEED - self.limits.max_outputs
