"""Values that nodes pass to each other: descriptions of what ComfyUI would compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from multimodal_gen.entrypoints.http.comfyui.graph.image_steps import ImageStep, PadStep

T = TypeVar("T")
MAX_STEPS = 8
"""Of one image, each of which can take seconds."""


class NodeValue:
    """Value of an output."""

    what: ClassVar[str]
    """Its description for errors."""


@dataclass(frozen=True)
class Given(Generic[T]):
    """A value, with the input that it was given for."""

    value: T
    node: str
    name: str


@dataclass(frozen=True)
class LoraValue:
    name: Given[str]
    scale: float


@dataclass(frozen=True)
class ModelValue(NodeValue):
    """The served model, with LoRAs in the order of their application."""

    what: ClassVar[str] = "a model"
    loader: str
    """Id of the node that names its file."""
    loras: tuple[LoraValue, ...] = ()
    shift: Given[float] | None = None
    guidance: tuple[tuple[str, Given[Any]], ...] = ()
    """Sampling parameters of guidance."""


@dataclass(frozen=True)
class EncoderValue(NodeValue):
    what: ClassVar[str] = "text encoders"


@dataclass(frozen=True)
class VaeValue(NodeValue):
    what: ClassVar[str] = "a VAE"


@dataclass(frozen=True)
class VisionEncoderValue(NodeValue):
    what: ClassVar[str] = "a vision encoder"


@dataclass(frozen=True)
class LoadedImage(NodeValue):
    """An image that a node loads, after `steps`."""

    what: ClassVar[str] = "a loaded image"
    node: str
    file: str
    steps: tuple[ImageStep, ...] = ()
    resized_by_model: bool = False
    """The model's own choice of size for it."""

    def then(self, step: ImageStep) -> LoadedImage:
        """Raises ValueError for too many steps."""
        if len(self.steps) == MAX_STEPS:
            raise ValueError(f"an image can have at most {MAX_STEPS} steps")
        return replace(self, steps=(*self.steps, step))


@dataclass(frozen=True)
class ImageList(NodeValue):
    what: ClassVar[str] = "several images"
    images: tuple[LoadedImage, ...]


@dataclass(frozen=True)
class LoadedMask(NodeValue):
    """One channel of an image, after `steps`: white where the image changes."""

    what: ClassVar[str] = "a loaded mask"
    image: LoadedImage
    channel: str = "alpha"
    """`red`, `green`, `blue`, or `alpha`, whose transparent parts change."""
    inverted: bool = False
    grow: int = 0
    """Pixels by which it grows."""
    erases: bool = False
    """Whether the masked area of the image is first filled with grey."""
    border: PadStep | None = None
    """Padding of the image, which is the mask."""


@dataclass(frozen=True)
class SizeOf:
    """Width, height or number of an image."""

    image: LoadedImage
    axis: int


@dataclass(frozen=True)
class SeenImage(NodeValue):
    what: ClassVar[str] = "an encoded image"
    image: LoadedImage


@dataclass(frozen=True)
class ControlNetValue(NodeValue):
    what: ClassVar[str] = "a ControlNet"
    name: Given[str]
    mode: str | None = None
    """Kind of images, for a network that takes several."""


@dataclass(frozen=True)
class ControlValue:
    """A ControlNet that is applied to a prompt."""

    net: ControlNetValue
    image: LoadedImage
    scale: float
    start: float = 0.0
    stop: float = 1.0


@dataclass(frozen=True)
class ConditioningValue(NodeValue):
    """A prompt."""

    what: ClassVar[str] = "a prompt"
    text: Given[str] | None
    """None: zeros instead of a text's embedding."""
    guidance: Given[float] | None = None
    references: tuple[LoadedImage, ...] = ()
    frame_rate: Given[float] | None = None
    controls: tuple[ControlValue, ...] = ()


@dataclass(frozen=True)
class LatentValue(NodeValue):
    """Latents that a sampler starts from."""

    what: ClassVar[str] = "an empty latent or an encoded image"
    node: str
    width: Given[int] | SizeOf | None = None
    height: Given[int] | SizeOf | None = None
    """None: the image's."""
    batch: Given[int] | None = None
    frames: Given[int] | None = None
    image: LoadedImage | None = None
    """Start of the denoising."""
    first_frame: LoadedImage | None = None
    last_frame: LoadedImage | None = None
    references: tuple[LoadedImage, ...] = ()
    mask: LoadedMask | None = None
    mask_from: str | None = None
    """Id of the node that sets the mask."""


@dataclass(frozen=True)
class NoiseValue(NodeValue):
    what: ClassVar[str] = "noise"
    seed: Given[int]


@dataclass(frozen=True)
class SolverValue(NodeValue):
    what: ClassVar[str] = "a sampler"
    name: Given[str]


@dataclass(frozen=True)
class ScheduleValue(NodeValue):
    """Noise levels."""

    what: ClassVar[str] = "sigmas"
    name: Given[str] | str
    """A scheduler's name as given, or that of a node's own schedule."""
    steps: Given[int]
    denoise: Given[float] | None = None
    """None: 1."""


@dataclass(frozen=True)
class GuiderValue(NodeValue):
    what: ClassVar[str] = "a guider"
    model: ModelValue
    positive: ConditioningValue
    negative: ConditioningValue | None = None
    cfg: Given[float] | None = None


@dataclass(frozen=True)
class SampledPart:
    """Part of the schedule that one of two samplers does."""

    start: int
    end: int
    leaves_noise: bool
    end_input: Given[int]


@dataclass(frozen=True)
class UpscaleModelValue(NodeValue):
    what: ClassVar[str] = "an upscale model"
    name: Given[str]


@dataclass(frozen=True)
class Enlarging:
    """Nodes that make a sampler's result larger."""

    factor: Given[float]
    model: Given[str] | None = None
    again: ScheduleValue | None = None
    """Schedule of another sampler, which starts from it."""


@dataclass(frozen=True)
class SampledLatent(NodeValue):
    """A sampler's result: one request."""

    what: ClassVar[str] = "a sampler's result"
    node: str
    guider: GuiderValue
    seed: Given[int]
    solver: Given[str]
    schedule: ScheduleValue
    latent: LatentValue
    stage: SampledPart | None = None
    first: SampledLatent | None = None
    """The sampler of the other expert, which ran before."""
    enlarging: Enlarging | None = None
    """Set if `node` is a second sampler, or its images are enlarged."""


@dataclass(frozen=True)
class EnlargedLatent(NodeValue):
    """A result that another sampler is to start from."""

    what: ClassVar[str] = "an enlarged latent"
    sampled: SampledLatent


@dataclass(frozen=True)
class DecodedImages(NodeValue):
    what: ClassVar[str] = "decoded images"
    sampled: SampledLatent


@dataclass(frozen=True)
class VideoValue(NodeValue):
    what: ClassVar[str] = "a video"
    sampled: SampledLatent
    fps: Given[float]


@dataclass(frozen=True)
class VideoFormat:
    """Encoding of a video."""

    suffix: str
    fps: int
    lossless: bool = False
    quality: int = 80


@dataclass(frozen=True)
class SavedResult(NodeValue):
    """Result that an output node saves."""

    what: ClassVar[str] = "a result"
    sampled: SampledLatent
    video: VideoFormat | None = None
    """None: one file per frame."""
    key: str = "images"
    """Name of its list of files in the history."""
