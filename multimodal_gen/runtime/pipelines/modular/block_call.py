"""Runs the blocks of a modular pipeline for one request, to be resumed step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.modular_pipelines.modular_pipeline import (
    ConditionalPipelineBlocks,
    LoopSequentialPipelineBlocks,
    PipelineState,
)
from diffusers.schedulers import SchedulerMixin
from torch import Tensor

from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.fallback.call import CallResult, pause_after_steps, to_uint8
from multimodal_gen.runtime.pipelines.fallback.previews import X0Recorder
from multimodal_gen.runtime.pipelines.fallback.stepped_call import Pause, SteppedCall

_PARTS = ("num_segments", "num_latent_chunk")
"""Numbers of parts of a video, in the states of loops over them."""


def start_blocks(
    stock: Any,
    inputs: Mapping[str, Any],
    guiders: Callable[[str, BaseGuidance], BaseGuidance],
    hold: Callable[[Any], None],
    *,
    previews: bool,
) -> SteppedCall:
    """Start the blocks of pipeline `stock` for a request, as a call for `LibrarySolver`.

    `guiders` makes the request's guider of each of the pipeline's, by name; `hold` brings the
    components of a block to the device. Requests share the pipeline's modules, but not its
    schedulers nor its guiders.
    """

    @torch.inference_mode()
    def call(pause: Pause) -> CallResult:
        components = _own_components(stock, guiders)
        scheduler = getattr(components, "scheduler", None)
        recorder = X0Recorder(scheduler) if previews and scheduler is not None else None
        state = PipelineState(values=dict(inputs))
        try:
            for block in _leaves(stock._blocks, state):
                hold(block)
                if isinstance(block, LoopSequentialPipelineBlocks):
                    block = _stepped(block, pause, recorder)
                block(components, state)
        finally:
            if recorder is not None:
                recorder.close()
            if scheduler is not None:
                vars(scheduler).pop("step", None)  # refers to the scheduler, which would be a cycle
        return made_by(state.values)

    return SteppedCall(call)


def _own_components(stock: Any, guiders: Callable[[str, BaseGuidance], BaseGuidance]) -> Any:
    """A copy of the pipeline with schedulers and guiders of its own."""
    own = copy.copy(stock)
    for name, component in stock.components.items():
        if isinstance(component, SchedulerMixin):
            setattr(own, name, copy.deepcopy(component))
        elif isinstance(component, BaseGuidance):
            setattr(own, name, guiders(name, component))
    return own


def _leaves(block: Any, state: PipelineState) -> Iterator[Any]:
    """Yield the blocks to run, each chosen by what the ones before it have left in `state`."""
    if isinstance(block, ConditionalPipelineBlocks):
        told = {name: state.get(name) for name in block.block_trigger_inputs if name is not None}
        name = block.select_block(**told) or block.default_block_name
        if name is not None:
            yield from _leaves(block.sub_blocks[name], state)
    elif block.sub_blocks and not isinstance(block, LoopSequentialPipelineBlocks):
        for each in block.sub_blocks.values():
            yield from _leaves(each, state)
    else:
        yield block


def phases_of(blocks: Any) -> Iterator[tuple[Phase, Any]]:
    """Yield each block that a request may run, with the phase in which it does: up to a loop, the
    loop, and after it."""
    phase = Phase.ENCODE
    for block in _all_leaves(blocks):
        is_loop = isinstance(block, LoopSequentialPipelineBlocks)
        if is_loop:
            phase = Phase.DECODE
        yield Phase.DENOISE if is_loop else phase, block


def _all_leaves(block: Any) -> Iterator[Any]:
    if not block.sub_blocks or isinstance(block, LoopSequentialPipelineBlocks):
        yield block
        return
    for each in block.sub_blocks.values():
        yield from _all_leaves(each)


def _stepped(loop: Any, pause: Pause, recorder: X0Recorder | None) -> Any:
    """A copy of a loop's block that pauses before its first step and after each.

    In a loop over parts of a video, each step of a part's scheduler is one.
    """
    own, step = copy.copy(loop), loop.loop_step
    announced = False

    def taken(latents: Tensor) -> None:
        row = latents if len(latents) == 1 else latents[None]
        pause((row, recorder.x0 if recorder else None))

    def loop_step(components: Any, state: Any, **place: Any) -> Any:
        nonlocal announced
        of_parts = "k" in place
        if not announced:
            announced = True
            pause(_steps(state, of_parts=of_parts))
            if of_parts:
                pause_after_steps(components.scheduler, taken)
        result = step(components, state, **place)
        if not of_parts:
            taken(state.latents)
        return result

    own.loop_step = loop_step
    own.set_progress_bar_config(disable=True)
    return own


def _steps(state: Any, *, of_parts: bool) -> int:
    """Number of a loop's steps, from its state before the first one."""
    if of_parts:
        parts = next(state[name] for name in _PARTS if state[name] is not None)
        return int(parts * state.num_inference_steps)
    if state["timesteps"] is not None:
        return len(state.timesteps)
    return len(state.sigmas) - 1


def made_by(left: Mapping[str, Any]) -> CallResult:
    """The pictures or the video, and the sound, that the last blocks have left."""
    made = np.asarray(left["videos"] if "videos" in left else left["images"])
    pixels = to_uint8(made[..., :3])  # some decoders add an alpha channel
    if (sound := left.get("audio")) is None:
        return CallResult(pixels, None)
    rate = int(left.get("sampling_rate") or 0)
    return CallResult(pixels, sound.reshape(-1, sound.shape[-1]).float(), rate)
