"""What diffusers' own pipeline makes of a checkpoint: the reference of parity tests."""

import inspect
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline, ModularPipeline, SchedulerMixin
from diffusers.modular_pipelines.minimax_h3.references import MiniMaxH3ImageReference
from diffusers.modular_pipelines.modular_pipeline import LoopSequentialPipelineBlocks

from .families.minimax_h3 import prompt_processor
from .families.qwen_image import picture_processor
from .families.qwen_image_21 import qwen3_processor
from .llm_tokenizers import MistralProcessor


@dataclass(frozen=True)
class Reference:
    """One run of a stock pipeline.

    `latents` are those that `output_type="latent"` gives (packed for FLUX; tokens of the video and
    then of the sound for LTX-2); `images` are uint8, [N, H, W, 3] for pictures and [N, F, H, W, 3]
    for videos.
    """

    latents: torch.Tensor
    images: npt.NDArray[np.uint8]
    audio: torch.Tensor | None = None
    """[channels, samples]."""


def reference(
    folder: Path,
    *,
    seed: int | Sequence[int] = 0,
    scheduler: SchedulerMixin | None = None,
    kind: Any = None,
    pipeline: Any = None,
    **call: Any,
) -> Reference:
    """Run the stock pipeline of `folder` once (float32, CPU) and return latents and pixels.

    Args:
        seed: of the initial noise, from a CPU generator. Of several outputs (a list of prompts,
            `num_images_per_prompt`), output j has seed + j; a sequence names each.
        scheduler: used for this run in place of the checkpoint's own.
        kind: pipeline class for another task, made of the components of the checkpoint's own.
        pipeline: used in place of the checkpoint's own.
        call: goes to the pipeline as it is.
    """
    if (folder / "modular_model_index.json").is_file():
        return modular_reference(folder, seed=seed, **call)
    if pipeline is None:
        pipeline = stock_pipeline(folder) if kind is None else _other(folder, kind)
    generators = [torch.Generator().manual_seed(each) for each in _seeds(seed, call)]
    last: dict[str, torch.Tensor] = {}

    def keep_latents(
        pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        last.update(tensors)
        return {}

    def keep(step: int, timestep: Any, latents: torch.Tensor) -> None:
        last["latents"] = latents

    observe: dict[str, Any] = {
        "callback_on_step_end": keep_latents,
        "callback_on_step_end_tensor_inputs": ["latents"],
    }
    if hasattr(pipeline, "audio_vae"):
        observe["callback_on_step_end_tensor_inputs"] = ["latents", "audio_latents"]
        pipeline._callback_tensor_inputs = ["latents", "audio_latents"]
    known = inspect.signature(pipeline.__call__).parameters
    if "callback_on_step_end" not in known:  # older pipelines have another, or none
        observe = {"callback": keep} if "callback" in known else {}
    sizes = {"width", "height"} - known.keys()  # follow from a picture
    call = {name: value for name, value in call.items() if name not in sizes}

    own_scheduler = pipeline.scheduler
    pipeline.scheduler = own_scheduler if scheduler is None else scheduler
    steps = nullcontext() if observe else kept_steps(type(pipeline.scheduler), last)
    try:
        with steps, warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
            output = pipeline(
                **call,
                generator=generators if len(generators) > 1 else generators[0],
                output_type="np",
                **observe,
            )
    finally:
        pipeline.scheduler = own_scheduler
    pixels = output.frames if hasattr(output, "frames") else output.images
    sound = output.audio[0] if hasattr(pipeline, "audio_vae") else None
    latents = torch.cat([last[name] for name in sorted(last, reverse=True)], dim=1)
    images = (np.asarray(pixels)[..., :3] * 255).round().astype(np.uint8)
    return Reference(latents, images, sound)


@contextmanager
def kept_steps(scheduler: Any, kept: dict[str, torch.Tensor]) -> Iterator[None]:
    """Keep the latents after each step of a scheduler class meanwhile."""
    step = scheduler.step

    def keep_step(*args: Any, **options: Any) -> Any:
        stepped = step(*args, **options)
        kept["latents"] = stepped[0].clone()
        return stepped

    with mock.patch.object(scheduler, "step", keep_step):
        yield


@cache
def stock_pipeline(folder: Path) -> Any:
    """The pipeline that `DiffusionPipeline.from_pretrained` gives for `folder`, loaded once."""
    load: Any = DiffusionPipeline.from_pretrained
    pipeline = load(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        variant=_variant(folder),
        **_absent(folder),
        **_processor(folder),
    )
    if _has_pixtral(folder):
        own = MistralProcessor.from_pretrained(folder / "tokenizer")
        pipeline.register_modules(tokenizer=own)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def _other(folder: Path, kind: Any) -> Any:
    pipeline = kind.from_pipe(stock_pipeline(folder))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _absent(folder: Path) -> dict[str, None]:
    """Text encoders that the index has as null: diffusers wants to be told."""
    index = json.loads((folder / "model_index.json").read_text())
    names = [name for name, value in index.items() if value == [None, None]]
    return {name: None for name in names if name.startswith(("tokenizer", "text_encoder"))}


def _processor(folder: Path) -> dict[str, Any]:
    """The one in the folder, which diffusers can't load where there is no torchvision."""
    index = json.loads((folder / "model_index.json").read_text())
    if index.get("processor", [None, None])[1] is not None:
        qwen3 = index["processor"][1] == "Qwen3VLProcessor"
        make = qwen3_processor if qwen3 else picture_processor
        return {"processor": make(folder / "processor")}
    return {"tokenizer": None} if _has_pixtral(folder) else {}


def _has_pixtral(folder: Path) -> bool:
    index = json.loads((folder / "model_index.json").read_text())
    return index.get("tokenizer") == ["transformers", "PixtralProcessor"]


def _variant(folder: Path) -> str | None:
    """ "fp16" for a folder whose denoiser is in files such as `*.fp16.safetensors`."""
    fp16 = [*folder.glob("transformer/*.fp16*"), *folder.glob("unet/*.fp16*")]
    return "fp16" if fp16 else None


def _seeds(seed: int | Sequence[int], call: dict[str, Any]) -> Sequence[int]:
    if not isinstance(seed, int):
        return seed
    prompt = call["prompt"]
    prompts = 1 if isinstance(prompt, str) else len(prompt)
    each = call.get("num_images_per_prompt", call.get("num_videos_per_prompt", 1))
    return range(seed, seed + prompts * each)


def modular_reference(folder: Path, *, seed: Any, **call: Any) -> Reference:
    """Run the stock modular pipeline of `folder`: latents are those after the last step."""
    pipeline = stock_modular(folder)
    if (scale := call.pop("guidance_scale", None)) is not None:
        pipeline.update_components(guider=pipeline.guider.new(guidance_scale=scale))
    if isinstance(shown := call.get("image"), list) and hasattr(pipeline, "audio_scheduler"):
        references = [MiniMaxH3ImageReference(each) for each in shown]
        call = {**call, "image": None, "references": references}
    pipeline._blocks.sub_blocks.pop("prompt_upsampler", None)
    kept: dict[str, torch.Tensor] = {}
    step = LoopSequentialPipelineBlocks.loop_step

    def keep_latents(loop: Any, components: Any, state: Any, **place: Any) -> Any:
        result = step(loop, components, state, **place)
        if hasattr(state, "num_condition_video_rows"):
            rows = [state.latents[state.num_condition_video_rows :]]
            rows += [state.audio_latents[state.num_condition_audio_rows :]]
            kept["latents"] = torch.cat([each.flatten() for each in rows])[None]
        elif state.latents is not None:
            kept["latents"] = state.latents.clone()
        return result

    with (
        mock.patch.object(LoopSequentialPipelineBlocks, "loop_step", keep_latents),
        kept_steps(type(pipeline.scheduler), kept),
    ):
        generator = torch.Generator().manual_seed(seed)
        made = pipeline(**call, generator=generator, output_type="np").values
    shown = np.asarray(made.get("videos", made.get("images")))[..., :3]
    pixels = (shown * 255).round().astype(np.uint8)
    audio = made.get("audio")
    return Reference(kept["latents"], pixels, None if audio is None else audio[0])


@cache
def stock_modular(folder: Path) -> Any:
    """The pipeline that `ModularPipeline.from_pretrained` gives for `folder`, loaded once."""
    load: Any = ModularPipeline.from_pretrained
    pipeline = load(str(folder), local_files_only=True)
    names = [name for name in pipeline.null_component_names if (folder / name).is_dir()]
    processors = [
        name
        for name in names
        if (folder / name / "processor_config.json").is_file()
        or (folder / name / "preprocessor_config.json").is_file()
    ]
    pipeline.load_components([name for name in names if name not in processors])
    for name in processors:
        pipeline.update_components(**{name: prompt_processor(folder / name)})
    return pipeline
