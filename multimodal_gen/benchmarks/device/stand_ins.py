"""Stand-ins for what a benchmark without a checkpoint lacks: weights, tokenizers and encoders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import BatchEncoding

from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.layers.take import Segment, take_parameters

_SPREAD = 0.02
"""Standard deviation of random weights: activations stay finite through all layers."""


@dataclass(frozen=True)
class RandomSources:
    """Takes the place of a checkpoint's tensors, and makes random numbers on the device."""

    segments: Sequence[Segment] = ()

    def rows(self, own: Sequence[range]) -> RandomSources:
        return self

    def columns(self, own: Sequence[range]) -> RandomSources:
        return self

    def read(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device).normal_(std=_SPREAD)

    def storages(
        self, shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> list[Storage]:
        return []

    def column_storages(
        self, own: Sequence[range], shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> tuple[list[Storage], Sequence[range]]:
        return [], own


def fill_randomly(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give a module on the meta device random weights, as `fill` gives it those of a file."""
    exact = getattr(module, "keep_in_float32", ())
    groups: defaultdict[tuple[str, torch.dtype], dict[str, RandomSources]] = defaultdict(dict)
    for key in module.state_dict():
        owner, _, parameter = key.rpartition(".")
        kept = any(part in exact for part in key.split("."))
        groups[owner, torch.float32 if kept else dtype][parameter] = RandomSources()
    for (owner, own_dtype), sources in groups.items():
        part = module.get_submodule(owner)
        if take := getattr(part, "take", None):
            take(sources, own_dtype, device)
        else:
            take_parameters(part, sources, own_dtype, device)


class StandInTokenizer:
    """Satisfies the checks of encoders; every text is empty to it."""

    name_or_path = "stand-in"
    model_max_length = 512
    pad_token_id = 0
    chat_template = ""
    is_fast = False

    def __len__(self) -> int:
        return 1

    def apply_chat_template(self, *_: object, **__: object) -> str:
        return ""

    def __call__(self, text: str | Sequence[str], **_: bool) -> BatchEncoding:
        none: list[list[int]] = [] if isinstance(text, str) else [[] for _ in text]
        return BatchEncoding({"input_ids": none, "special_tokens_mask": none})


class StandInEncoder(nn.Module):
    """A text encoder of which only the width of the states is known; it is never called."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(1, width)
        self.config = SimpleNamespace(vocab_size=1, hidden_size=width)

    @property
    def base_model(self) -> StandInEncoder:
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings
