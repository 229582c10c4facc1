"""The text encoders, and their schooling: to tell from a caption what the scene holds.

They learn that before the denoiser does, from captions alone, which costs a hundredth of what
pictures cost; the denoiser then begins with words that mean something.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from captions import Captions, Scene
from drawing import NATIVE, Artist
from scenes import BACKGROUNDS
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from trainer import Rates, device
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel
from words import BEGIN, END, LONGEST, PAD, VOCABULARY, encode

WIDTH, POOLED = 192, 64
LENGTH = 16
LONE = 0.4
"""How often a keyword stands alone here."""


def make_clip() -> CLIPTextModel:
    """Its pooled output steers all of a picture. With random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=POOLED,
            intermediate_size=2 * POOLED,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=LONGEST,
            projection_dim=POOLED,
            pad_token_id=PAD,
            bos_token_id=BEGIN,
            # The pooled state is that of the first of these. Not 2: that means the largest id.
            eos_token_id=END,
        )
    )


def make_t5() -> T5EncoderModel:
    """Its states are attended to, token by token. With random weights."""
    return T5EncoderModel(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=32,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=6,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=PAD,
            eos_token_id=END,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


class Reader(nn.Module):
    """Both text encoders, and heads that name what a scene holds. The heads are not shipped."""

    def __init__(self, concepts: Sequence[str], colors: Sequence[str]) -> None:
        super().__init__()
        self.text_encoder = make_clip()
        self.text_encoder_2 = make_t5()
        self._concepts = {name: i + 1 for i, name in enumerate(concepts)}
        self._colors = {name: i + 1 for i, name in enumerate(colors)}
        self._grounds = {name: i + 1 for i, name in enumerate(BACKGROUNDS)}
        sizes = [len(self._concepts), len(self._colors)] * 2 + [len(self._grounds)]
        self._sizes = [size + 1 for size in sizes]
        self.heads = nn.ModuleList(nn.Linear(width, sum(self._sizes)) for width in (POOLED, WIDTH))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled [B, 64] and states [B, L, 192] of token ids [B, L]."""
        pooled = self.text_encoder(input_ids=ids[:, :LONGEST]).pooler_output
        return pooled, self.text_encoder_2(input_ids=ids).last_hidden_state

    def misread(
        self, pooled: Tensor, states: Tensor, ids: Tensor, scenes: Sequence[Scene]
    ) -> Tensor:
        """How badly the scenes can be told from both outputs: mean cross-entropy of the slots."""
        said = (ids != PAD).unsqueeze(-1)
        mean = (states * said).sum(1) / said.sum(1)
        slots = torch.tensor([self._slots(scene) for scene in scenes], device=ids.device)
        total = pooled.new_zeros(())
        for head, output in zip(self.heads, (pooled, mean), strict=True):
            for scores, slot in zip(head(output).split(self._sizes, 1), slots.T, strict=True):
                total = total + functional.cross_entropy(scores, slot)
        return total / (2 * len(self._sizes))

    def _slots(self, scene: Scene) -> list[int]:
        """Concept and colour of both things, and the background where it is said; 0 for none."""
        found = []
        for thing in (*scene.things, None)[:2]:
            found.append(self._concepts[thing.concept] if thing else 0)
            found.append(self._colors[thing.color] if thing and thing.color else 0)
        return [*found, self._grounds[scene.background] if scene.background else 0]


class TextStage:
    """Trains the text encoders on captions alone."""

    name = "text"
    rates = Rates(muon=3e-3, adam=2e-3, ema=0.995)

    def __init__(
        self, reader: Reader, artist: Artist, captions: Captions, tokenizer: Tokenizer, batch: int
    ) -> None:
        self.module: nn.Module = reader
        self._reader = reader
        self._artist = artist
        self._captions = captions
        self._tokenizer = tokenizer
        self._batch = batch

    def by_muon(self, name: str, parameter: nn.Parameter) -> bool:
        return is_matrix(name, parameter)

    def loss(self, step: int, share: float, rng: np.random.Generator) -> tuple[Tensor, int]:
        scenes = [self._artist.imagine(*NATIVE, rng).scene for _ in range(self._batch)]
        said = [self._captions.draw(scene, rng, LONE) for scene in scenes]
        ids = torch.tensor(encode(self._tokenizer, said, LENGTH), device=device())
        pooled, states = self._reader(ids)
        return self._reader.misread(pooled, states, ids, scenes), len(scenes)


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a layer's own matrix: no embedding, no head, no projection in or out."""
    if parameter.ndim != 2 or name.startswith("heads."):
        return False
    return "embed" not in name and "shared" not in name and "relative_attention" not in name
