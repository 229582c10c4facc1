"""Chunks of a prompt's tokens, as AUTOMATIC1111's web UI and ComfyUI split them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from multimodal_gen.configs.prompts.grammar import PromptSyntax

_BACKTRACK = 20
"""The web UI splits after a comma that is among the last so many tokens of a chunk."""
_WORD = 8
"""ComfyUI splits runs of so many tokens, or more; shorter ones are kept together."""


class TokenRun(NamedTuple):
    """Tokens of one weight."""

    ids: list[int]
    weight: float
    breaks: bool = False


@dataclass
class Chunk:
    """Tokens of one call of an encoder, without those at its ends."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    def upto(self, end: int) -> Chunk:
        return Chunk(self.ids[:end], self.weights[:end])

    def after(self, start: int) -> Chunk:
        return Chunk(self.ids[start:], self.weights[start:])

    @property
    def is_weighted(self) -> bool:
        return any(weight != 1 for weight in self.weights)


def fill(
    syntax: PromptSyntax, runs: Sequence[TokenRun], room: int, comma: int | None = None
) -> list[Chunk]:
    """Split runs into at least one chunk of at most `room` tokens; `comma`: the token."""
    if room < 1:
        return [Chunk()]
    return _fill_comfyui(runs, room) if syntax == "comfyui" else _fill_a1111(runs, room, comma)


def _fill_a1111(runs: Sequence[TokenRun], room: int, comma: int | None) -> list[Chunk]:
    full: list[Chunk] = []
    chunk, after_comma = Chunk(), 0
    for run in runs:
        if run.breaks:
            full.append(chunk)
            chunk, after_comma = Chunk(), 0
        for token in run.ids:
            if len(chunk.ids) == room:
                near = token != comma and after_comma > 0 and room - after_comma < _BACKTRACK
                end = after_comma if near else room
                full.append(chunk.upto(end))
                chunk, after_comma = chunk.after(end), 0
            chunk.add([token], run.weight)
            if token == comma:
                after_comma = len(chunk.ids)
    return [*full, chunk] if chunk.ids or not full else full


def _fill_comfyui(runs: Sequence[TokenRun], room: int) -> list[Chunk]:
    chunks = [Chunk()]
    for run in runs:
        ids = run.ids
        while ids:
            left = room - len(chunks[-1].ids)
            if len(ids) > left and len(run.ids) < min(_WORD, room + 1):
                left = 0
            chunks[-1].add(ids[:left], run.weight)
            ids = ids[left:]
            if ids:
                chunks.append(Chunk())
    return chunks
