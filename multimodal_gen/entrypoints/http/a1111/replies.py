"""Replies of txt2img and img2img."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from multimodal_gen.client.request_handle import Output, warnings_of
from multimodal_gen.configs.solvers import a1111_name
from multimodal_gen.entrypoints.http.a1111.input_images.pictures import Patch
from multimodal_gen.entrypoints.http.a1111.jobs import A1111Job
from multimodal_gen.entrypoints.http.a1111.schema import NAMES, Generation
from multimodal_gen.entrypoints.http.openai.image_replies import Encoding, in_base64
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import RequestWarning, as_plain
from multimodal_gen.postprocess.images import encode_image
from multimodal_gen.postprocess.metadata import Recipe

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Reply:
    """Reply for a job that has finished or was stopped."""

    body: Generation
    warnings: Sequence[RequestWarning]
    job: A1111Job
    encoding: Encoding
    patch: Patch | None = None
    """Image that results are laid into."""

    def content(self) -> dict[str, Any]:
        """Build the body; slow, because images are encoded."""
        return {
            "images": []
            if self.body.send_images is False
            else [in_base64(file) for file in self._files()],
            "parameters": self.body.echo(),
            "info": json.dumps(self._info()),
        }

    def _files(self) -> list[bytes]:
        """Image files; for a stopped job, finished images and the last previews of others."""
        task = self.job.task
        files = []
        for index, (req, output) in enumerate(zip(task.requests, task.outputs, strict=True)):
            if output is not None:
                files.append(self._file(req, output))
            elif (preview := task.previews.get(index)) is not None:
                files.append(self._preview(req, preview))
        return files

    def _file(self, req: Req, output: Output) -> bytes:
        if self.patch is not None:
            output = replace(output, pixels=self.patch.lay(output.pixels[0])[None])
        return self.encoding.encode(req, output)

    def _preview(self, req: Req, pixels: np.ndarray[Any, Any]) -> bytes:
        if self.patch is not None:
            return encode_image(self.patch.lay(pixels), self.encoding.format)
        return self.encoding.encode_preview(req, pixels)

    def _info(self) -> dict[str, Any]:
        """Generation info that clients read; `all_…` has one entry per image."""
        requests = self.job.task.requests
        params, body = requests[0].params, self.body
        seeds = [req.params.seed for req in requests]
        negative = params.negative_prompt or ""
        embedded = params.true_cfg_scale is not None
        return {
            "prompt": params.prompt,
            "all_prompts": [params.prompt] * len(requests),
            "negative_prompt": negative,
            "all_negative_prompts": [negative] * len(requests),
            "seed": seeds[0],
            "all_seeds": seeds,
            "subseed": -1,
            "all_subseeds": [-1] * len(requests),
            "subseed_strength": 0,
            "width": params.width,
            "height": params.height,
            "sampler_name": params.scheduler and a1111_name(params.scheduler),
            "cfg_scale": _or_none(params.true_cfg_scale if embedded else params.guidance_scale),
            "steps": params.num_inference_steps,
            "batch_size": body.batch_size or 1,
            "restore_faces": False,
            "face_restoration_model": None,
            "sd_model_name": self.encoding.model,
            "sd_model_hash": None,
            "sd_vae_name": None,
            "sd_vae_hash": None,
            "seed_resize_from_w": -1,
            "seed_resize_from_h": -1,
            "denoising_strength": params.upscale.strength if params.upscale else params.strength,
            "extra_generation_params": {},
            "index_of_first_image": 0,
            "infotexts": [self._infotext(req) for req in requests],
            "styles": [],
            "job_timestamp": self.job.timestamp,
            "clip_skip": 1,
            "is_using_inpainting_conditioning": False,
            "interrupted": self.job.stopped,
            "warnings": as_plain([*self.warnings, *self._of_results()]),
        }

    def _of_results(self) -> Iterator[RequestWarning]:
        """Warnings about parameters, with the body's names for these."""
        for warning in warnings_of(self.job.task.made):
            name = NAMES.get(warning.field or "")
            if name is not None and self.body.distilled_cfg_scale is not None:
                name = {"guidance_scale": "distilled_cfg_scale"}.get(warning.field or "", name)
            yield warning if name is None else warning.about(name)

    def _infotext(self, req: Req) -> str:
        return Recipe.of(req, None, self.encoding.model).infotext()


def _or_none(scale: float | None) -> float:
    """A guidance scale; that of no guidance if the model has none."""
    return 1.0 if scale is None else scale
