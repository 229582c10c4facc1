"""What parity with diffusers means: one request through both, and how far they are apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
from engineless import Output, Pictures, run
from tiny_checkpoints import Reference, reference, stock_pipeline

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import SOLVERS, View
from multimodal_gen.messages.pictures import named_images
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

LATENTS = 1e-4
PIXELS = 1
SOUND = 1e-4
OWN_LATENTS = 1e-3
"""Two runs of this engine: the alignment of mapped weights and the size of a batch decide how a
product is summed, so even equal weights may give other bits."""


def stock_scheduler(folder: Path, name: str, view: View, **settings: Any) -> Any:
    """The stock pipeline's scheduler exchanged for the class behind a short name, with these
    settings.

    A flow's shift goes along: diffusers has two names for it, and so forgets it.
    """
    spec = SOLVERS[name]
    config = stock_pipeline(folder).scheduler.config
    shift = config.get("shift", config.get("flow_shift", 1.0))
    kind = getattr(diffusers, spec.scheduler)
    values = {**spec.views[view], "shift": shift, "flow_shift": shift, **settings}
    return kind.from_config(config, **values)


def check_parity(
    pipeline: ComposedPipeline,
    folder: Path,
    *,
    solver: str | None = None,
    view: View = View.NOISE,
    stock: Any = None,
    stock_call: dict[str, Any] | None = None,
    stock_settings: dict[str, Any] | None = None,
    own_call: dict[str, Any] | None = None,
    own_pictures: Pictures | None = None,
    **call: Any,
) -> None:
    """The same request, given as diffusers' arguments, on both sides. Seed 0 where none is said.

    `stock` is the pipeline class of diffusers that does the task, where it is not the checkpoint's
    own; `image`, which may be a list, `image_reference` and `mask_image` are PIL pictures.
    `stock_call` is for the stock pipeline only, `stock_settings` for its scheduler, and `own_call`
    and `own_pictures` for this engine.
    """
    settings = stock_settings or {}
    scheduler = None if solver is None else stock_scheduler(folder, solver, view, **settings)
    theirs = reference(folder, scheduler=scheduler, kind=stock, **call, **(stock_call or {}))
    pictures = {**take_pictures(call), **(own_pictures or {})}
    params = SamplingParams(**call, **(own_call or {}))
    ours = run(pipeline, replace(params, scheduler=solver), pictures)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS
    assert (ours.sound is None) == (theirs.audio is None)
    if ours.sound is not None and theirs.audio is not None:
        assert ours.sound.shape == theirs.audio.shape
        assert float(np.abs(ours.sound - theirs.audio.numpy()).max()) <= SOUND


def check_same_picture(first: Output, second: Output) -> None:
    """Two outputs of one request by this engine, from different files or in different batches."""
    error = (first.latents - second.latents).abs().max() / first.latents.abs().max()
    assert float(error) <= OWN_LATENTS
    assert int(np.abs(first.pixels.astype(int) - second.pixels.astype(int)).max()) <= PIXELS


def take_pictures(call: dict[str, Any]) -> Pictures:
    """The PIL pictures among diffusers' arguments, taken out of them; a video is a list of them."""
    images = call.pop("image", call.pop("reference_images", []))
    references = [call.pop(name) for name in ("image_reference",) if name in call]
    pictures = named_images([*(images if isinstance(images, list) else [images]), *references])
    pictures |= {name: call.pop(name) for name in ("last_image",) if name in call}
    taken = {name: np.asarray(picture.convert("RGB")) for name, picture in pictures.items()}
    if "mask_image" in call:
        taken["mask"] = np.asarray(call.pop("mask_image").convert("L"))
    if "mask" in call:
        first, *_ = call.pop("mask")  # ours is for all frames
        taken["mask"] = np.asarray(first.convert("L"))
    if "video" in call:
        taken["video"] = np.stack([np.asarray(frame.convert("RGB")) for frame in call.pop("video")])
    return taken


def relative(ours: Output, theirs: Reference) -> float:
    """The largest error of a latent, over the largest latent."""
    error = (ours.latents - theirs.latents).abs().max()
    return float(error / theirs.latents.abs().max())


def pixels_apart(ours: Output, theirs: Reference) -> int:
    expected = theirs.images.reshape(ours.pixels.shape)
    return int(np.abs(ours.pixels.astype(int) - expected.astype(int)).max())
