"""Counts a prompt's tokens from a checkpoint's files, without loading the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Encoding, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from multimodal_gen.checkpoints.files import inside, read_json
from multimodal_gen.errors import InvalidCheckpoint

_REMEMBERED = 8
_FIXED, _ASKED = True, False
"""A text encoder reads as many tokens as it has positions, or as a request asks for."""
_READERS: Mapping[str, Mapping[str, bool]] = {
    "stable_diffusion": {"tokenizer": _FIXED},
    "stable_diffusion_xl": {"tokenizer": _FIXED, "tokenizer_2": _FIXED},
    "stable_diffusion_3": {"tokenizer": _FIXED, "tokenizer_2": _FIXED, "tokenizer_3": _ASKED},
    **{name: {"tokenizer_2": _ASKED} for name in ("flux", "flux_fill", "flux_kontext")},
    **{name: {"tokenizer": _ASKED} for name in ("chroma", "cogvideox", "ltx")},
    **{name: {"tokenizer": _ASKED} for name in ("wan", "wan_image_to_video", "wan_vace")},
}
"""Tokenizers by family: those whose encoders read a prompt as it is, each to its end."""
_CLIP_WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")


@dataclass(frozen=True)
class CountedPrompt:
    tokens: int
    """With those that each text has around it."""
    limit: int
    """As many are read."""
    cut: str
    """The end of the prompt that is not read."""


class PromptCounter:
    """A tokenizer, and how much its text encoder reads."""

    def __init__(self, tokenizer: Tokenizer, fixed: int | None) -> None:
        """`fixed`: the limit, or None if a request's `max_sequence_length` is."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._fixed = fixed

    def __call__(self, prompt: str, length: int | None) -> CountedPrompt | None:
        """Count the tokens of a prompt; `length` is the request's `max_sequence_length`. None if
        that is the limit, and isn't known."""
        limit = self._fixed or length
        if limit is None:
            return None
        found = self._tokenizer.encode(prompt)
        return CountedPrompt(len(found), limit, prompt[_read(found, prompt, limit) :].strip())


def _read(found: Encoding, prompt: str, limit: int) -> int:
    """Number of characters that fit."""
    if len(found) <= limit:
        return len(prompt)
    marks = found.special_tokens_mask
    places = [place for place, mark in zip(found.offsets, marks, strict=True) if not mark]
    kept = max(0, limit - sum(marks))
    return places[kept][0] if kept < len(places) else len(prompt)


@lru_cache(_REMEMBERED)
def prompt_counters(folder: Path, family: str) -> tuple[PromptCounter, ...]:
    """Return the counters of a checkpoint; none if its family reads prompts in other ways, or has
    no tokenizer that can be read here. Accesses the disk."""
    try:
        return tuple(_counters(folder, family))
    except InvalidCheckpoint:
        return ()


def _counters(folder: Path, family: str) -> Iterator[PromptCounter]:
    for name, fixed in _READERS.get(family, {}).items():
        if not inside(folder, name).is_dir():
            continue  # as Stable Diffusion 3 without T5
        limit = _positions(folder, name) if fixed else None
        yield PromptCounter(_tokenizer(folder, name), limit)


def _positions(folder: Path, name: str) -> int:
    """Tokens that a text encoder has room for."""
    own = read_json(folder, f"{name}/tokenizer_config.json").get("model_max_length")
    encoder = read_json(folder, f"{name.replace('tokenizer', 'text_encoder')}/config.json")
    found = [
        each for each in (own, encoder.get("max_position_embeddings")) if isinstance(each, int)
    ]
    if not found:
        raise InvalidCheckpoint(f"{name}: has no model_max_length")
    return min(found)


def _tokenizer(folder: Path, name: str) -> Tokenizer:
    file = inside(folder, f"{name}/tokenizer.json")
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        return _clip_tokenizer(inside(folder, name))
    except Exception as error:  # the library raises no narrower class
        raise InvalidCheckpoint(f"{name}: can't be read: {error}") from error


def _clip_tokenizer(folder: Path) -> Tokenizer:
    """CLIP's, from the two files that its first checkpoints have."""
    vocabulary, merges = models.BPE.read_file(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_CLIP_WORDS, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    begin, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(each, vocabulary[each]) for each in (begin, end)],
    )
    return tokenizer
