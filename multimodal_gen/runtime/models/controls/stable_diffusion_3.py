"""ControlNet for Stable Diffusion 3, after diffusers' SD3ControlNetModel.

It is a Stable Diffusion 3 transformer of a few blocks without an end. A picture is added to its
image tokens; what leaves each block passes a linear layer. Those for 3.5 large have no text, and
embed the latents as the model does that they steer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from multimodal_gen.runtime.layers.joint_stream import (
    BlockContext,
    JointStream,
    StreamInput,
    joint_block,
)
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.keys import Modules, image_stream, parameters
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config
from multimodal_gen.runtime.models.dits.stable_diffusion_3.keys import sd3_key_map
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import SD3Transformer, patches_of

_STREAM = 6  # modulation vectors


@dataclass(frozen=True)
class SD3ControlConfig(SD3Config):
    """The fields and defaults of diffusers' SD3ControlNetModel."""

    title: ClassVar = "Stable Diffusion 3 ControlNet"

    joint_attention_dim: int | None = 4096  # type: ignore[assignment]  # null: no text
    extra_conditioning_channels: int = 0
    """Must be 0: others are for inpainting."""
    pos_embed_type: str | None = "sincos"
    use_pos_embed: bool = True
    """False: the latents are embedded by the model's own layers."""
    force_zeros_for_pooled_projection: bool = True
    """Whether the pooled text is zero, and the VAE's shift is not subtracted from the picture."""

    def check(self) -> None:
        super().check()
        if self.extra_conditioning_channels:
            allowed = "0: ControlNets for inpainting are not supported"
            raise self.invalid("extra_conditioning_channels", allowed)
        if not self.has_text and self.dual_attention_layers:
            raise self.invalid("dual_attention_layers", "[] without joint_attention_dim")

        if self.use_pos_embed and self.pos_embed_type != "sincos":
            raise self.invalid("pos_embed_type", "'sincos' with use_pos_embed")

    @property
    def has_text(self) -> bool:
        return self.joint_attention_dim is not None

    def ends_text(self, block: int) -> bool:
        return False


class SD3ControlNet(SD3Transformer):
    """Create it on the meta device; fill it with `sd3_control_key_map`."""

    config: SD3ControlConfig

    def __init__(self, config: SD3ControlConfig, parts: Parts) -> None:
        width = config.joint_attention_dim or config.inner_dim
        super().__init__(replace(config, joint_attention_dim=width), parts)
        self.config = config
        del self.proj_out, self.out_modulation
        self._modulations, self._vectors = self._modulations[1:], self._vectors[1:]
        dim, patch = config.inner_dim, config.patch_size
        if not config.has_text:
            del self.context_embedder
            alone = [SD3ImageBlock(config, parts) for _ in range(config.num_layers)]
            self.blocks = nn.ModuleList(alone)
            self._modulations = [block.modulation for block in alone]
            self._vectors = [count for block in alone for count in block.vectors]
        if not config.use_pos_embed:
            del self.patch_embed, self.pos_embed
        self.control_embed = parts.patches(config.in_channels, dim, (patch, patch))
        self.outputs = nn.ModuleList(parts.linear(dim, dim) for _ in self.blocks)

    def residuals(
        self,
        model: SD3Transformer,
        latents: Tensor,
        picture: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
    ) -> list[Tensor]:
        """This rank's part of what leaves each block, [B, S_local, dim].

        `picture` [B, C, h, w] are latents; `model` is the transformer that is steered. The others
        are as for that.
        """
        embeds = self if self.config.use_pos_embed else model
        image = embeds.embed_patches(latents, None)
        patches = patches_of(picture, self.config.patch_size)
        image = image + self.control_embed(self.sequence.shard(patches))
        if self.config.force_zeros_for_pooled_projection:
            pooled_projections = pooled_projections.new_zeros(pooled_projections.shape)
        tokens, text = patches.shape[1], encoder_hidden_states[:, :0]
        if self.config.has_text:
            text = self.context_embedder(self.sequence.shard(encoder_hidden_states))
        streams = (tokens, encoder_hidden_states.shape[1])
        vectors = self._modulate(timestep, pooled_projections, None)
        found: list[Tensor] = []

        def take(number: int, tokens: Tensor) -> None:
            found.append(self.outputs[number](tokens))

        self.run(image, text, vectors, BlockContext(None, streams), take)
        return found

    def _add_to_scales(self, vectors: Tensor) -> None:
        vectors[:, 1::3].add_(1)

    def spread(self, found: Sequence[Tensor], blocks: int) -> list[Tensor | None]:
        """Return what is added after each block of a transformer with so many, given the outputs of
        the blocks of this one: nothing after the last."""
        each = blocks / len(found)
        return [found[int(i / each)] for i in range(blocks - 1)]


class SD3ImageBlock(nn.Module):
    """The image alone, with the interface of `SD3Block`."""

    vectors: ClassVar = (_STREAM, 0)

    def __init__(self, config: SD3ControlConfig, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        dim, heads = config.inner_dim, config.num_attention_heads
        self.image = JointStream(parts, dim, heads, config.mlp_dim, qk_norm=False)
        self.modulation = parts.linear(dim, _STREAM * dim)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        of_image: Sequence[Tensor],
        of_text: Sequence[Tensor],
        context: BlockContext,
    ) -> tuple[Tensor, Tensor]:
        by_itself = context._replace(streams=context.streams[:1])
        inputs = [StreamInput(self.image, image, of_image)]
        return joint_block(self.parts, inputs, by_itself)[0], text


def sd3_control_key_map(config: SD3ControlConfig) -> Mapping[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names."""
    layers: Modules = {"control_embed": ("pos_embed_input.proj",)}
    layers |= {f"outputs.{i}": (f"controlnet_blocks.{i}",) for i in range(config.num_layers)}
    without = ["proj_out.", "out_modulation."]
    if not config.use_pos_embed:
        without += ["pos_embed", "patch_embed."]
    if not config.has_text:
        without += ["context_embedder.", "blocks."]
        for i in range(config.num_layers):
            theirs = f"transformer_blocks.{i}"
            layers |= image_stream(f"blocks.{i}.image", theirs)
            layers[f"blocks.{i}.modulation"] = (f"{theirs}.norm1.linear",)
    found = sd3_key_map(config).items()
    own = {ours: of for ours, of in found if not ours.startswith(tuple(without))}
    return own | parameters(layers, {})
