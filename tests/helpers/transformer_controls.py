"""Small ControlNets of diffusers for the tiny checkpoints of native transformers."""

from __future__ import annotations

from typing import Any

import diffusers

SIZES = {"a": (48, 80), "b": (70, 45), "c": (64, 64)}
"""Of the pictures of these networks, by name."""


def networks_for(name: str, transformer: Any) -> dict[str, Any]:
    """Networks of several forms, without weights worth anything, for checkpoint `name`."""
    config = {key: value for key, value in transformer.config.items() if not key.startswith("_")}
    if name == "flux-dev":
        make = diffusers.FluxControlNetModel
        own = {key: value for key, value in config.items() if key != "out_channels"}
        hint = {"conditioning_embedding_channels": config["in_channels"] // 4, "patch_size": 2}
        return {
            "a": make(**{**own, "num_layers": 1, "num_single_layers": 2, "guidance_embeds": False}),
            "b": make(**{**own, "num_layers": 1, "num_single_layers": 1, "num_mode": 9}),
            "c": make(**{**own, **hint, "num_layers": 1, "num_single_layers": 0}),
        }
    if name == "sd3":
        make = diffusers.SD3ControlNetModel
        alone = {
            "joint_attention_dim": None,
            "use_pos_embed": False,
            "pos_embed_type": None,
            "force_zeros_for_pooled_projection": False,
            "dual_attention_layers": (),
        }
        return {
            "a": make(**{**config, "num_layers": 1}),
            "b": make(**{**config, "num_layers": 2, "pos_embed_max_size": 24}),
            "c": make(**{**config, **alone, "num_layers": 2}),
        }
    if name == "qwenimage":
        make = diffusers.QwenImageControlNetModel
        known = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")
        own = {key: value for key, value in config.items() if key not in known}
        return {key: make(**{**own, "num_layers": n}) for key, n in (("a", 1), ("b", 1))}
    shared = ("dim", "n_refiner_layers", "n_heads", "n_kv_heads", "norm_eps", "qk_norm")
    own = {key: config[key] for key in shared}
    channels, refiners = config["in_channels"], [*range(config["n_refiner_layers"])]

    def z_image(steers: str | None, layers: list[int], more: int = 0) -> Any:
        return diffusers.ZImageControlNetModel(
            control_layers_places=layers,
            control_refiner_layers_places=refiners,
            control_in_dim=channels + more,
            add_control_noise_refiner=steers,
            **own,
        )

    return {
        "a": z_image(None, [0]),
        "b": z_image("control_layers", [0, 1], channels + 1),
        "c": z_image("control_noise_refiner", [0, 1], channels + 1),
    }
