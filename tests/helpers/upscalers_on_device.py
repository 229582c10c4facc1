"""Waits of results that are enlarged, on the pretended device; `python upscalers_on_device.py`.

Prints, in JSON, the waits by place of each unit of a model of pixels, and of what LTX-2 does
between its two passes and of the second one's evaluations.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pretend_device


def watched(name: str, upscale: str, folder: Path) -> list[dict[str, int]]:
    from device_cases import REQUEST, loaded
    from engineless import left, start

    from multimodal_gen.configs.sampling_params import SamplingParams
    from multimodal_gen.messages.plan import Phase
    from multimodal_gen.runtime.stages.decode import decode_units

    waits = []
    with loaded(name) as (device, pipeline):
        pipeline.upscalers.open(str(folder))
        more = {"num_frames": 5, "max_sequence_length": 32} if name == "ltx2" else {}
        state = start(pipeline, SamplingParams(**{**REQUEST, **more, "upscale": upscale}))
        pipeline.forward(Phase.DENOISE, [state], left(state))
        for _ in range(decode_units(pipeline, state)):
            with device.watching() as seen:
                pipeline.forward(Phase.DECODE, [state], 1)
        waits.append(dict(seen.waits))
        assert state.second is not None
        later = state.second
        phase = Phase.DENOISE if later.enlargement is None else Phase.DECODE
        units = left(later) if later.enlargement is None else decode_units(pipeline, later)
        for _ in range(units):
            with device.watching() as seen:
                pipeline.forward(phase, [later], 1)
            waits.append(dict(seen.waits))
    return waits


def main() -> dict[str, list[dict[str, int]]]:
    from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
    from safetensors.torch import save_file
    from tiny_checkpoints.families.ltx2 import CHANNELS
    from upscaling import DOUBLE, INSTALLED, save_esrgan

    if not INSTALLED:
        sys.path.insert(0, str(DOUBLE))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_esrgan(folder / "4x-tiny.safetensors")
        model = LTX2LatentUpsamplerModel(CHANNELS, mid_channels=32, num_blocks_per_stage=1)
        save_file(model.state_dict(), folder / "latents.safetensors")
        return {
            "pixels": watched("flux-dev", "4x-tiny@4", folder),
            "latents": watched("ltx2", "latents@2:0.5:4", folder),
        }


if __name__ == "__main__":
    pretend_device.install()
    print(json.dumps(main()))
