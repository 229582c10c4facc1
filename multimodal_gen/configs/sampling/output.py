"""Parameters of the prompt, and of the size and number of what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from multimodal_gen.configs.parameter_spec import ParameterSpec
from multimodal_gen.configs.prompts.grammar import PromptSyntax


@dataclass(frozen=True, kw_only=True)
class OutputParameters:
    """Declares what to generate: the prompts, sizes, and the number of outputs."""

    prompt: Annotated[str, ParameterSpec(help="What to generate")] = ""
    negative_prompt: Annotated[
        str | None,
        ParameterSpec(
            help="What to avoid; only used with classifier-free guidance",
            needs=("guidance",),
            model_default=True,
        ),
    ] = None
    enhance_prompt: Annotated[
        bool,
        ParameterSpec(
            help="Let a language model rewrite the prompt",
            needs=("parameter",),
            option="prompt_enhancer",
        ),
    ] = False
    prompt_syntax: Annotated[
        PromptSyntax,
        ParameterSpec(help="Prompt weights", needs=("parameter",)),
    ] = "plain"
    max_sequence_length: Annotated[
        int | None,
        ParameterSpec(
            help="Length that prompts are padded or cut to",
            unit="tokens",
            lowest=1,
            highest="limits.max_sequence_length",
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    width: Annotated[
        int | None,
        ParameterSpec(
            help="Width of the output",
            unit="pixels",
            lowest="size_multiple",
            highest="limits.max_side",
            multiple_of="size_multiple",
            default="the model's, or follows from the input image",
            model_default=True,
            required=True,
        ),
    ] = None
    height: Annotated[
        int | None,
        ParameterSpec(
            help="Height of the output",
            unit="pixels",
            lowest="size_multiple",
            highest="limits.max_side",
            multiple_of="size_multiple",
            default="the model's, or follows from the input image",
            model_default=True,
            required=True,
        ),
    ] = None
    num_frames: Annotated[
        int | None,
        ParameterSpec(
            help="Length of the video",
            unit="frames",
            lowest="limits.min_frames",
            highest="limits.max_frames",
            multiple_of="frame_multiple",
            remainder="limits.min_frames",
            needs=("parameter", "video"),
            model_default=True,
            fallback=1,
            required=True,
        ),
    ] = None
    fps: Annotated[
        int | None,
        ParameterSpec(
            help="Frame rate of the video",
            unit="frames per second",
            lowest=1,
            highest=240,
            needs=("parameter", "video"),
            model_default=True,
        ),
    ] = None
    seed: Annotated[
        int | None,
        ParameterSpec(
            help="Random seed; with several outputs, output j uses seed + j",
            lowest=0,
            highest="max_seed",
            default="random, as with -1",
            required=True,
        ),
    ] = None
    num_outputs_per_prompt: Annotated[
        int,
        ParameterSpec(help="Number of outputs per prompt", lowest=1, highest="limits.max_outputs"),
    ] = 1
