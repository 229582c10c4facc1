"""ControlNets for Stable Diffusion 3 and 3.5."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.controls.control import (
    Added,
    ControlCall,
    ControlDescription,
    ControlPicture,
    ControlTarget,
    ResidualControl,
    Told,
    scaled,
)
from multimodal_gen.runtime.controls.transformer_kind import TransformerKind, count
from multimodal_gen.runtime.models.controls.stable_diffusion_3 import (
    SD3ControlConfig,
    SD3ControlNet,
    sd3_control_key_map,
)

_SHARED = ("latents", "encoder_hidden_states", "pooled_projections", "timestep")


class SD3Control(ResidualControl):
    """Runs the network on its rows. It sees the mode of its picture's posterior; the library draws
    from that by a generator that a request does not set."""

    def __init__(self, network: SD3ControlNet, target: ControlTarget) -> None:
        super().__init__(network)
        self._target = target

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        self._check_size(picture)
        shown = picture.latents(drawn=False)
        if self.module.config.force_zeros_for_pooled_projection:
            vae: Any = self._target.modules["vae"]
            shown = shown + vae.config.scaling_factor * (vae.config.shift_factor or 0.0)
        told = {"picture": shown.to(self._target.context.dtype)}
        return dict.fromkeys(picture.branches, told)

    def _check_size(self, picture: ControlPicture) -> None:
        """Raise InvalidRequest for an output with more tokens than the network has places for."""
        config, vae = self.module.config, picture.vae
        assert vae is not None
        longest = config.pos_embed_max_size * config.patch_size * vae.pixels_per_latent
        if config.use_pos_embed and max(picture.height, picture.width) > longest:
            size = f"{picture.width}x{picture.height}"
            raise InvalidRequest("control", size, f"sides must be at most {longest} for this one")

    def residuals(self, call: ControlCall) -> Added:
        given: dict[str, Any] = {name: call.tensors[name] for name in _SHARED}
        model = self._target.modules["transformer"]
        found = scaled(self.module.residuals(model, **given, **call.told), call.scale)
        return {"control": self.module.spread(found, self._target.config["num_layers"])}


class SD3ControlKind(TransformerKind[SD3ControlConfig]):
    class_name = "SD3ControlNetModel"
    own_tensors = ("controlnet_blocks.0.weight", "pos_embed_input.proj.weight")
    model_class = "SD3Transformer2DModel"
    model_title = "Stable Diffusion 3"
    equal: ClassVar = ("in_channels", "attention_head_dim", "num_attention_heads", "patch_size")
    config_class = SD3ControlConfig
    make = SD3ControlNet
    key_map = staticmethod(sd3_control_key_map)

    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        if (other := super().misfit(described, target)) is not None:
            return other
        config = self.config(described, target)
        for name in ("joint_attention_dim", "pooled_projection_dim"):
            own, wanted = getattr(config, name), target.config[name]
            if own not in (None, wanted):
                return f"is a ControlNet for a {self.model_title} with {name}={own}, not {wanted}"
        return None

    def found(self, described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
        blocks, names = count(described, "transformer_blocks"), described.header.tensors
        places = described.shape("pos_embed.pos_embed")
        shown = described.shape("pos_embed_input.proj.weight")[1]
        text = "context_embedder.weight" in names
        dual = [i for i in range(blocks) if f"transformer_blocks.{i}.attn2.to_q.weight" in names]
        normed = "transformer_blocks.0.attn.norm_q.weight" in names
        return {
            "num_layers": blocks,
            "joint_attention_dim": target.config["joint_attention_dim"] if text else None,
            "use_pos_embed": bool(places),
            "pos_embed_max_size": math.isqrt(places[1]) if places else 1,
            "extra_conditioning_channels": shown - target.config["in_channels"],
            "force_zeros_for_pooled_projection": text,
            "dual_attention_layers": dual,
            "qk_norm": "rms_norm" if normed else None,
        }

    def control(self, network: SD3ControlNet, target: ControlTarget) -> SD3Control:
        return SD3Control(network, target)


KIND = SD3ControlKind()
