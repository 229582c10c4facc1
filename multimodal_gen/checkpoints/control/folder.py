"""The operator's folder of controls, addressed by name."""

from __future__ import annotations

from multimodal_gen.checkpoints.adapter_folder import AdapterFolder


class ControlFolder(AdapterFolder):
    """Controls as single files, or in folders with the library's config file."""

    field = "control"
    config = "config.json"
    beside = ("image_encoder",)
    preferred = (
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    )
