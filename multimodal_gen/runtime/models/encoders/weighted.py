"""Encodes prompts with weights, in as many chunks as they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.prompts.grammar import PromptSyntax, WeightedText, parse
from multimodal_gen.runtime.distributed.device_copies import copied, tensor_of
from multimodal_gen.runtime.models.encoders.chunks import Chunk, TokenRun, fill
from multimodal_gen.runtime.models.encoders.cutting import Cut, cut_in_parts
from multimodal_gen.runtime.models.encoders.text import TextEncoder

Take = Callable[[Any], Tensor]
"""States [1, S, D] of an encoder's output."""


@dataclass(frozen=True)
class ReadPrompt:
    """A text, and how it is read; equal ones have equal embeddings."""

    text: str
    syntax: PromptSyntax = "plain"
    chunks: int = 1
    """Chunks that it takes, or more: the others are of the empty prompt."""


@dataclass(frozen=True)
class Encoded:
    states: Tensor
    """[1, chunks * S, D], with weights."""
    first: Any
    """Output of the module for the first chunk, without weights."""


class WeightedEncoder(TextEncoder):
    """A text encoder whose states can be weighted by token."""

    def chunks(self, text: str, syntax: PromptSyntax) -> list[Chunk]:
        """Split a prompt's tokens into chunks of `max_length`, which counts the tokens at their
        ends too. Plain text is one chunk, whatever does not fit into it."""
        runs = self._runs(parse(text, syntax))
        return fill(syntax, runs, self._room(self.max_length), self._comma)

    def one_chunk(self, text: str, syntax: PromptSyntax, length: int) -> Chunk:
        """The first tokens of a prompt, as many as fit into a chunk of `length`."""
        chunk = Chunk()
        for run in self._runs(parse(text, syntax)):
            chunk.add(run.ids, run.weight)
        return chunk.upto(self._room(length))

    def cut(self, text: str, syntax: PromptSyntax, length: int | None = None) -> Cut | None:
        """Return the end that no chunk has; `length` as for `one_chunk`, or None where there may be
        several."""
        if length is None and syntax != "plain":
            return None
        limit = self.max_length if length is None else length
        return cut_in_parts(self._tokenizer, parse(text, syntax), self._room(limit), limit)

    def in_chunks(self, prompt: ReadPrompt, take: Take, **options: bool) -> Encoded:
        """Encode each chunk, one by one; `options` as for calls."""
        length = self.max_length
        if prompt.syntax == "plain":
            return self._plain(prompt.text, length, take, options)
        chunks = self.chunks(prompt.text, prompt.syntax)
        chunks += [Chunk()] * (prompt.chunks - len(chunks))
        return self._encoded(chunks, prompt.syntax, length, take, options)

    def in_one(self, prompt: ReadPrompt, length: int, take: Take, **options: bool) -> Encoded:
        """Encode what fits into one chunk of `length`."""
        if prompt.syntax == "plain":
            return self._plain(prompt.text, length, take, options)
        chunk = self.one_chunk(prompt.text, prompt.syntax, length)
        return self._encoded([chunk], prompt.syntax, length, take, options)

    def _plain(self, text: str, length: int, take: Take, options: dict[str, bool]) -> Encoded:
        output = self(text, length, **options)
        return Encoded(take(output), output)

    def _encoded(
        self,
        chunks: Sequence[Chunk],
        syntax: PromptSyntax,
        length: int,
        take: Take,
        options: dict[str, bool],
    ) -> Encoded:
        def run(chunk: Chunk) -> Any:
            ids, mask = self._padded(chunk, length)
            return self.run(ids, mask, **options)

        weighted = any(chunk.is_weighted for chunk in chunks)
        empty = take(run(Chunk())) if weighted and syntax == "comfyui" else None
        outputs = [run(chunk) for chunk in chunks]
        states = [take(output) for output in outputs]
        for i, chunk in enumerate(chunks):
            if chunk.is_weighted:
                states[i] = _weighted(states[i], self._weights(chunk, length, states[i]), empty)
        return Encoded(states[0] if len(states) == 1 else torch.cat(states, dim=1), outputs[0])

    def _runs(self, parts: Sequence[WeightedText]) -> list[TokenRun]:
        ids = self._tokenizer([part.text for part in parts], add_special_tokens=False).input_ids
        pairs = zip(ids, parts, strict=True)
        return [TokenRun(own, part.weight, part.breaks) for own, part in pairs]

    @property
    def _ends(self) -> tuple[list[int], list[int]]:
        """Tokens ahead of a text and after it: CLIP has one each, T5 only the latter."""
        both: list[int] = self._tokenizer("").input_ids
        return both[:-1], both[-1:]

    @property
    def _comma(self) -> int | None:
        ids: list[int] = self._tokenizer(",", add_special_tokens=False).input_ids
        return ids[0] if len(ids) == 1 else None

    def _room(self, length: int) -> int:
        """Tokens of text in a chunk."""
        return max(0, length - sum(map(len, self._ends)))

    def _padded(self, chunk: Chunk, length: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, both [1, length], as `tokenize` returns them."""
        before, after = self._ends
        ids = [*before, *chunk.ids, *after][:length]
        padding = length - len(ids)
        mask = [1] * len(ids) + [0] * padding
        ids += [self._tokenizer.pad_token_id] * padding
        device = self._module.device
        return copied(torch.tensor([ids]), device), copied(torch.tensor([mask]), device)

    def _weights(self, chunk: Chunk, length: int, states: Tensor) -> Tensor:
        """Weights [1, length, 1] of a chunk's tokens; 1 for those at its ends and for padding."""
        before, _ = self._ends
        weights = [1.0] * len(before) + chunk.weights
        weights += [1.0] * (length - len(weights))
        return tensor_of(weights, states.device).view(1, -1, 1)


def _weighted(states: Tensor, weights: Tensor, empty: Tensor | None) -> Tensor:
    """Weight states [1, S, D]: about the empty prompt's, as ComfyUI does; without these about 0,
    with their mean restored, as the web UI does."""
    if empty is not None:
        about = empty.float() + (states.float() - empty.float()) * weights
        return torch.where(weights == 1, states, about.to(states.dtype))
    scaled = states.float() * weights
    return (scaled * (states.float().mean() / scaled.mean())).to(states.dtype)
