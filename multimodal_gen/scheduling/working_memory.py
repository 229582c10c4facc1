"""First guesses of the memory that work takes beside the weights, and the limit that it sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from multimodal_gen.messages.model_info import Defaults, ModelInfo
from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.cost_model import FLOPS_PER_S
from multimodal_gen.scheduling.residency import Moment

DECODING_SHARE = 4
"""Encoding and decoding pixels may take one part in so many of the device's memory."""
GRAPH_BYTES = 2**31
"""Set aside for captured evaluations."""
ENCODERS = ("text_encoder", "image_encoder", "connectors")
"""Kinds of components that encode prompts and what is shown with them."""
DECODERS = ("vae", "audio_vae", "vocoder")
"""Kinds of components that decoding uses: of pixels, and of sound."""
TEXT_TOKENS = 512
"""Tokens of a text, as most models pad it."""
_TOKEN_SIDE = 16
"""Pixels per token and side, as in most models."""
_FRAMES_PER_LATENT = 4

Together = tuple[Phase, tuple[str, ...]]
"""Components that are needed at once in a phase."""


def tokens_of(defaults: Defaults) -> int:
    """Tokens of a picture or video of the default size, with its text."""
    frames = (defaults.num_frames - 1) // _FRAMES_PER_LATENT + 1
    return frames * defaults.width * defaults.height // _TOKEN_SIDE**2 + TEXT_TOKENS


def evaluation_bytes(parameters: int, tokens: int) -> int:
    """Activations of a transformer: its width grows with the root of its parameters."""
    return int(4 * math.sqrt(parameters) * tokens)


def has_room_for_graphs(free: int) -> bool:
    """True if, of so many free bytes, captured evaluations take a small part."""
    return free >= 4 * GRAPH_BYTES


def can_capture(parameters: int, tokens: int) -> bool:
    """True for evaluations whose activations take at most half of `GRAPH_BYTES`: those in which
    launching kernels takes a good part of the time."""
    return evaluation_bytes(parameters, tokens) <= GRAPH_BYTES // 2


def within_memory(model: ModelInfo, parameters: int, memory_bytes: int) -> ModelInfo:
    """`model` with the limit that `memory_bytes` of free memory sets; 0: unknown.

    A token takes at least as many bytes as the root of the parameters, to which the width of a
    transformer is proportional: a low estimate, so that what might fit is tried. Decoding sets no
    limit, as it is done in tiles.
    """
    if not memory_bytes or not parameters:
        return model
    tokens = memory_bytes / math.sqrt(parameters)
    volume = int(tokens * max(model.size_multiple, _TOKEN_SIDE) ** 2)
    limits = msgspec.structs.replace(model.limits, max_volume=volume)
    return msgspec.structs.replace(model, limits=limits)


def kind_of(name: str) -> str:
    """Kind of a component name: `text_encoder` for `text_encoder_2`, `transformer` for
    `transformer_ref`."""
    return name.rstrip("_234").removesuffix("_ref")


def needed_together(names: Sequence[str], denoiser: str) -> list[Together]:
    """Components, of these, that are on the device at once at some time: to encode prompts, to
    denoise with previews, to decode and to encode images. `denoiser`: its name without a number."""

    def of_kind(*kinds: str) -> tuple[str, ...]:
        return tuple(name for name in names if kind_of(name) in kinds)

    denoising = ((name, *of_kind("vae")) for name in of_kind(denoiser))
    return [
        (Phase.ENCODE, of_kind(*ENCODERS)),
        *((Phase.DENOISE, together) for together in denoising),
        (Phase.DECODE, of_kind(*DECODERS)),
    ]


def moments_of(
    groups: Iterable[Together],
    parameters: Mapping[str, int],
    defaults: Defaults,
    decoding: int,
) -> Iterator[Moment]:
    """Yield what `needed_together` says, with the memory that requests of the default size take;
    `decoding`: bytes of that."""
    for phase, names in groups:
        tokens, others = tokens_of(defaults), [name for name in names if name not in DECODERS]
        sizes = [evaluation_bytes(parameters[name], tokens) for name in others]
        if not sizes and names:
            sizes = [decoding]
        yield Moment(frozenset(names), max(sizes, default=0), phase)


def expected_work(parameters: int, defaults: Defaults, *, denoises: bool) -> tuple[int, float]:
    """Evaluations of a component in a request of the default size, and seconds of each on a GPU."""
    tokens = tokens_of(defaults) if denoises else TEXT_TOKENS
    seconds = 2 * parameters * tokens / FLOPS_PER_S["cuda"]
    return defaults.num_inference_steps if denoises else 1, seconds
