"""The Z-Image transformer, after Tongyi-MAI/Z-Image and diffusers' ZImageTransformer2DModel.

Image and text are first refined separately, then pass through one stack of blocks as one stream:
the image, then its text. Both are padded to multiples of 32 tokens with a learned token, which is
attended to like the others. Every block except the text's is modulated by the timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.activation import swiglu
from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import BlockContext, start_attention
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import block_vectors, split_vectors
from multimodal_gen.runtime.layers.norm import HeadNorms, scaled_rms_norm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import RotaryTables, rotary_table
from multimodal_gen.runtime.models.dits.after_block import AfterBlock, Residuals, adding
from multimodal_gen.runtime.models.dits.z_image.config import PATCH, ZImageConfig

_MULTIPLE = 32  # tokens that image and text are padded to
_TIME_DIM, _TIME_HIDDEN = 256, 1024
_VECTORS = 4  # modulation vectors of a block
_QK_EPS = 1e-5
_Length = TypeVar("_Length", int, Tensor)


class Embedded(NamedTuple):
    """Image and text as they enter the blocks, [B, S_local, dim], and what all blocks share."""

    image: Tensor
    text: Tensor
    time: Tensor
    """Embedded timesteps, [B, modulation_dim]."""
    whole: BlockContext
    """Context of image and text together."""

    @property
    def of_image(self) -> BlockContext:
        """Context of the image alone."""
        assert self.whole.rotary is not None
        rotary = self.whole.rotary[:, : self.image.shape[1]]
        return BlockContext(rotary, self.whole.streams[:1], lora=self.whole.lora)


class ZImageTransformer(nn.Module):
    """Predicts the flow's velocity, from noise to image.

    Create it on the meta device; fill it with `z_image_key_map`.
    """

    keep_exact: ClassVar = ("*_embedder*", "*modulation", "proj_out")

    def __init__(self, config: ZImageConfig, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim, width = config.dim, config.modulation_dim
        self.x_embedder = parts.linear(config.token_channels, dim)
        self.text_norm = Elementwise(config.cap_feat_dim)
        self.text_embedder = parts.linear(config.cap_feat_dim, dim)
        self.x_pad_token = nn.Parameter(torch.empty(1, dim))
        self.text_pad_token = nn.Parameter(torch.empty(1, dim))
        self.time_embedder = EmbeddingMLP(parts, _TIME_DIM, width, hidden=_TIME_HIDDEN)
        refine, go_on = config.n_refiner_layers, config.n_layers

        def made(count: int, *, modulated: bool) -> list[ZImageBlock]:
            return [ZImageBlock(config, parts, modulated=modulated) for _ in range(count)]

        self.text_refiners = nn.ModuleList(made(refine, modulated=False))
        blocks = made(refine + go_on, modulated=True)
        self.blocks = nn.ModuleList(blocks)
        self._modulations = [b.modulation for b in blocks if b.modulation is not None]
        self.out_modulation = parts.linear(width, dim)
        self.proj_out = parts.linear(dim, config.token_channels)
        self._rotary_tables: RotaryTables[Tensor] = RotaryTables(kept=8)

    @property
    def layers_ahead(self) -> Sequence[nn.Module]:
        """Layers of blocks that run before the first block."""
        return self._modulations

    @property
    def refiner_modulations(self) -> Sequence[Linear]:
        """Layers that modulate the image's refiners."""
        return self._modulations[: self.config.n_refiner_layers]

    def forward(
        self,
        latents: Tensor,
        text: Tensor,
        text_tokens: int,
        timestep: Tensor,
        rotary: Tensor,
        lengths: Tensor | None = None,
        control: Residuals | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity like `latents` [B, C, h, w], both sides even, for `timestep` [B] in 0..1, which
        is 0 for pure noise.

        `text` is the result of `refined` for `text_tokens` tokens, of which `lengths` [B] are valid
        per row (None: all); `rotary` that of `rotary` for these latents and texts; `control` is
        added after the blocks of image and text together, to both.
        """
        grid = (latents.shape[2] // PATCH, latents.shape[3] // PATCH)
        given = self.embed(latents, text, text_tokens, timestep, rotary, lengths, lora)
        modulation = modulate(self._modulations, given.time, self.config.dim, lora)
        refine, after = self.config.n_refiner_layers, adding(control)
        joint = self.refine(given, modulation[:refine])
        for number, block in enumerate(self.blocks[refine:]):
            joint = block(joint, given.whole, modulation[refine + number])
            if after is not None:
                after(number, joint)
        image = F.layer_norm(joint[:, : given.image.shape[1]], joint.shape[-1:], eps=1e-6)
        scale = 1 + self.out_modulation(F.silu(given.time), lora)
        image = self.proj_out(image * scale.unsqueeze(1), lora)
        image = self.sequence.gather(image, given.whole.streams[0])[:, : grid[0] * grid[1]]
        return unpatchify(image, grid)

    def embed(
        self,
        latents: Tensor,
        text: Tensor,
        text_tokens: int,
        timestep: Tensor,
        rotary: Tensor,
        lengths: Tensor | None,
        lora: LoraRows | None,
    ) -> Embedded:
        """Make what the blocks are given for the arguments of `forward`."""
        tokens = patchify(latents)
        streams = (padded(tokens.shape[1]), padded(text_tokens))
        ends = None if lengths is None else padded(lengths) + streams[0]
        whole = BlockContext(rotary, streams, ends, lora)
        time = self._embed(timestep, latents.dtype, lora)
        image = self.x_embedder(self.share(tokens, streams[0]), lora)
        image = self.pad_image(image, tokens.shape[1])
        return Embedded(image, text, time, whole)

    def refined(
        self, states: Tensor, rotary: Tensor, lengths: Tensor | None, lora: LoraRows | None
    ) -> Tensor:
        """This rank's tokens [B, S_local, dim] of texts [B, S, D] after their refiners, the same in
        all evaluations. `rotary` and `lengths` are those of `forward`."""
        length = padded(states.shape[1])
        text = self._embed_text(states, lengths, length, lora)
        ends = None if lengths is None else padded(lengths)
        own = rotary[:, rotary.shape[1] - text.shape[1] :]
        context = BlockContext(own, (length,), ends, lora)
        for block in self.text_refiners:
            text = block(text, context)
        return text

    def refine(
        self,
        given: Embedded,
        modulation: Sequence[Sequence[Tensor]],
        after: AfterBlock | None = None,
    ) -> Tensor:
        """Image after its refiners, then text, [B, S_local, dim]; `after` is given the image's
        tokens after each of them, whose vectors `modulation` has."""
        image, alone = given.image, given.of_image
        for number, block in enumerate(self.blocks[: self.config.n_refiner_layers]):
            image = block(image, alone, modulation[number])
            if after is not None:
                after(number, image)
        return torch.cat((image, given.text), dim=1)

    def _embed(self, timestep: Tensor, dtype: torch.dtype, lora: LoraRows | None) -> Tensor:
        """Embed timesteps: [B, modulation_dim]."""
        sinusoids = sinusoidal_embedding(timestep * self.config.t_scale, _TIME_DIM)
        embedded: Tensor = self.time_embedder(sinusoids.to(dtype), lora)
        return embedded

    def pad_image(self, image: Tensor, tokens: int) -> Tensor:
        """This rank's share of an image's embedded tokens, [B, S_local, dim], with the learned
        token after the first `tokens` of the whole."""
        return self._with_padding(image, self.x_pad_token, tokens, padded(tokens))

    def _embed_text(
        self, states: Tensor, lengths: Tensor | None, length: int, lora: LoraRows | None
    ) -> Tensor:
        """Embed this rank's share of the text's tokens, padded to `length`; [B, S_local, dim]."""
        norm = self.text_norm.weight_of(lora)
        text = scaled_rms_norm(self.share(states, length), norm, self.config.norm_eps)
        valid = states.shape[1] if lengths is None else lengths[:, None]
        text = self.text_embedder(text, lora)
        return self._with_padding(text, self.text_pad_token, valid, length)

    def share(self, x: Tensor, length: int) -> Tensor:
        """This rank's share of x [B, S, C], padded to `length` with zeros."""
        return self.sequence.shard(F.pad(x, (0, 0, 0, length - x.shape[1])))

    def _with_padding(self, x: Tensor, token: Tensor, valid: int | Tensor, length: int) -> Tensor:
        """x [B, S_local, dim] with `token` after the first `valid` (or [B, 1]) of `length`."""
        if isinstance(valid, int) and valid == length:
            return x
        at = self.sequence.shard(torch.arange(length, device=x.device), 0)
        return torch.where((at < valid).unsqueeze(-1), x, token)

    def rotary(
        self, sizes: Sequence[int], text: int, lengths: Tensor | None = None, rows: int = 1
    ) -> Tensor:
        """Rotary tables of this rank, [B, S_local, head_dim / 2, 2], for latents of these sizes (h,
        w) and texts of `text` tokens, of which `lengths` [B] are valid. Without `lengths` B is
        `rows`, all equal."""
        config, device = self.config, self.x_pad_token.device
        grid = (sizes[0] // PATCH, sizes[1] // PATCH)
        streams = (padded(grid[0] * grid[1]), padded(text))

        def table(ends: Tensor) -> Tensor:
            positions = self._positions(grid, streams, ends)
            return rotary_table(positions, config.axes_dims, config.rope_theta)

        if lengths is not None:
            return table(padded(lengths))

        def alike() -> Tensor:
            return table(torch.full((rows,), streams[1], device=device))

        return self._rotary_tables.get((grid, streams, rows, device), alike)

    def _positions(self, grid: tuple[int, int], streams: tuple[int, int], ends: Tensor) -> Tensor:
        """Time, row and column [B, S_local, 3] of this rank's tokens.

        A text counts up from time 1; its image is at the following time, and the image's padding at
        the origin.
        """
        device, rows = ends.device, len(ends)
        times, down, across = (torch.arange(n, device=device) for n in (streams[1], *grid))
        image = torch.cartesian_prod(torch.ones_like(down[:1]), down, across)
        image = image * F.pad(ends[:, None] + 1, (0, 2), value=1)[:, None]
        image = F.pad(image, (0, 0, 0, streams[0] - image.shape[1]))
        text = F.pad(times[:, None] + 1, (0, 2)).expand(rows, -1, -1)
        return torch.cat((self.sequence.shard(image), self.sequence.shard(text)), dim=1)


class ZImageBlock(nn.Module):
    """Attention and MLP, each between two RMS norms; the text's refiners are not modulated."""

    rotary_by_row: ClassVar = True
    """Each row has a rotary table of its own."""

    def __init__(self, config: ZImageConfig, parts: Parts, *, modulated: bool) -> None:
        super().__init__()
        dim, width = config.dim, config.head_dim
        self.parts = parts
        self.eps = config.norm_eps
        self.heads = (3, parts.heads(config.n_heads), width)
        self.modulation = parts.linear(config.modulation_dim, _VECTORS * dim) if modulated else None
        self.attention_norm_in = Elementwise(dim)
        self.qkv = parts.column(dim, (dim, dim, dim), unit=width, bias=False)
        self.qk_norm = parts.qk_norm(width) if config.qk_norm else None
        self.attention_out = parts.row((dim,), dim, unit=width, bias=False)
        self.attention_norm_out = Elementwise(dim)
        self.mlp_norm_in = Elementwise(dim)
        self.mlp_in = parts.column(dim, (config.mlp_dim, config.mlp_dim), bias=False)
        self.mlp_out = parts.row((config.mlp_dim,), dim, bias=False)
        self.mlp_norm_out = Elementwise(dim)

    def forward(
        self, x: Tensor, context: BlockContext, modulation: Sequence[Tensor] | None = None
    ) -> Tensor:
        """x [B, S_local, dim]."""
        lora = context.lora
        norms: Sequence[Tensor] = [
            norm.weight_of(lora)
            for norm in (
                self.attention_norm_in,
                self.attention_norm_out,
                self.mlp_norm_in,
                self.mlp_norm_out,
            )
        ]
        if modulation is not None:  # scales and gates are multiplied into the norms' weights
            norms = [norm * vector for norm, vector in zip(norms, modulation, strict=True)]
        attended = self._attend(scaled_rms_norm(x, norms[0], self.eps), context)
        x = x + scaled_rms_norm(attended, norms[1], self.eps)
        hidden = swiglu(self.mlp_in(scaled_rms_norm(x, norms[2], self.eps), lora))
        return x + scaled_rms_norm(self.mlp_out(hidden, lora), norms[3], self.eps)

    def _attend(self, x: Tensor, context: BlockContext) -> Tensor:
        qkv = self.qkv(x, context.lora).view(*x.shape[:2], *self.heads)  # [B, S, 3, H, D]

        norms: Callable[[Tensor], Tensor] = Tensor.float
        if self.qk_norm is not None:
            norms = HeadNorms([self.qk_norm], qkv.shape[1:2], _QK_EPS, context.lora)
        attended = start_attention(self.parts, qkv, norms, context).wait()
        out: Tensor = self.attention_out(attended, context.lora)
        return out


def modulate(
    layers: Sequence[Linear], time: Tensor, dim: int, lora: LoraRows | None
) -> list[Sequence[Tensor]]:
    """Scale and gate of attention, then of the MLP, for each of these layers, each [B, 1, dim].

    1 has been added to the scales.
    """
    vectors = block_vectors(layers, time, dim, lora)
    vectors[:, ::2].add_(1)
    vectors[:, 1::2].tanh_()
    return split_vectors(vectors, [_VECTORS] * len(layers))


def patchify(latents: Tensor) -> Tensor:
    """[B, C, 2h, 2w] -> [B, h * w, 4C], channels innermost."""
    # [B, C, h, 2, w, 2]
    patches: Tensor = latents.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h * w, 4C] -> [B, C, 2h, 2w]."""
    # [B, h, w, 2, 2, C]
    patches: Tensor = tokens.unflatten(2, (PATCH, PATCH, -1)).unflatten(1, grid)
    return patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def padded(length: _Length) -> _Length:
    """Next multiple to which image and text are padded."""
    return -(-length // _MULTIPLE) * _MULTIPLE
