"""Encodes prompts, each only once, and tells how they were read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from multimodal_gen.configs.prompts.grammar import parse
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.models.encoders.cache import ConditioningCache
from multimodal_gen.runtime.models.encoders.counting import TokenCounter
from multimodal_gen.runtime.models.encoders.cutting import Cut, CutsPrompts
from multimodal_gen.runtime.models.encoders.weighted import ReadPrompt, WeightedEncoder
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState

_SHOWN_WEIGHTS, _SHOWN_CHARACTERS = 20, 40
_SHOWN_WORDS = 300
"""Characters of what is cut off."""
MOST_CHUNKS = 128
"""Of a prompt; each makes the texts that a denoiser sees longer."""


class EncodedPrompts:
    """Cache of prompts' conditioning, which also depends on LoRAs that change the encoders."""

    def __init__(self, loras: LoadedLoras, hold_encoders: Callable[[], None]) -> None:
        """`hold_encoders` makes the text encoders resident: only new prompts need them."""
        self.cache = ConditioningCache()
        self._loras = loras
        self._hold_encoders = hold_encoders

    def encoded(
        self, state: RequestState, branch: str, encode: Callable[[str, int], Conditioning]
    ) -> Conditioning:
        """Encode a branch's text by `encode(text, length)`, with the request's
        `max_sequence_length` as length."""
        text, length = text_of(state.params, branch), state.params.max_sequence_length
        assert length is not None
        return self.remembered(state, (text, length), lambda: encode(text, length))

    def remembered(
        self, state: RequestState, key: Hashable, encode: Callable[[], Conditioning]
    ) -> Conditioning:
        """Return the conditioning for `key`; calls `encode` if it is not cached."""

        def encode_here() -> Conditioning:
            self._hold_encoders()
            return encode()

        return self.cache.get((key, self._loras.of_encoders(state.loras_now)), encode_here)


def text_of(params: SamplingParams, branch: str) -> str:
    """Text of a branch; empty without a negative prompt."""
    return params.prompt if branch == "positive" else params.negative_prompt or ""


class WeightedPrompts:
    """Prompts for encoders whose states can be weighted."""

    def __init__(
        self,
        prompts: EncodedPrompts,
        branches: Callable[[SamplingParams], Sequence[str]],
        components: Mapping[str, Any],
        longest: Callable[[], int | None],
    ) -> None:
        """`branches` of a request, as `Guidance` has them; `components` of the pipeline, and the
        `longest` max_sequence_length."""
        self._longest = longest
        self._count_tokens = TokenCounter(components)
        self._prompts = prompts
        self._branches = branches
        self.in_chunks: Mapping[str, WeightedEncoder] = {}
        """Encoders by component that take chunks."""
        self.in_one: Mapping[str, CutsPrompts] = {}
        """Those that take as many tokens as `max_sequence_length` says."""
        self.cleaned: Callable[[str], str] = str
        """Text as it is given to these."""

    def of(self, state: RequestState, branch: str) -> ReadPrompt:
        """A branch's prompt, with as many chunks as the longest of the request's. Raises
        InvalidRequest."""
        params = state.params
        text, syntax = text_of(params, branch), params.prompt_syntax
        if syntax == "plain":
            return ReadPrompt(text)
        counts = {each: self._count(params, each) for each in self._branches(params)}
        longest = max(counts, key=lambda each: counts[each])
        if (most := counts[longest]) > MOST_CHUNKS:
            allowed = (
                f"has {most} chunks by prompt_syntax={syntax}, must have at most {MOST_CHUNKS}"
            )
            raise InvalidRequest(_FIELDS[longest], text_of(params, longest), allowed)
        return ReadPrompt(text, syntax, most)

    def encoded(
        self, state: RequestState, branch: str, encode: Callable[[ReadPrompt, int], Conditioning]
    ) -> Conditioning:
        """Encode a branch's prompt, with the request's `max_sequence_length` as length."""
        prompt, length = self.of(state, branch), state.params.max_sequence_length
        assert length is not None
        return self._prompts.remembered(state, (prompt, length), lambda: encode(prompt, length))

    def _count(self, params: SamplingParams, branch: str) -> int:
        """Number of chunks of a branch's own text."""
        text, encoders = text_of(params, branch), self.in_chunks.values()
        return max((len(each.chunks(text, params.prompt_syntax)) for each in encoders), default=1)

    def tokens(self, state: RequestState) -> int:
        """Number of tokens of the prompts of all branches."""
        params = state.params
        texts = (text_of(params, branch) for branch in self._branches(params))
        return sum(self._count_tokens(text, params.prompt_syntax) for text in texts)

    def notes(self, state: RequestState) -> list[str]:
        """Tell how prompts with a syntax were read."""
        params = state.params
        if params.prompt_syntax == "plain":
            return []
        return [self._note(params, branch) for branch in self._branches(params)]

    def _note(self, params: SamplingParams, branch: str) -> str:
        count = self._count(params, branch)
        parts = parse(text_of(params, branch), params.prompt_syntax)
        weighted = [part for part in parts if part.weight != 1]
        shown = [
            f"{part.text.strip()[:_SHOWN_CHARACTERS]} {part.weight:.4g}"
            for part in weighted[:_SHOWN_WEIGHTS]
        ]
        more = ["…"] if len(weighted) > _SHOWN_WEIGHTS else []
        weights = f"; weights: {', '.join([*shown, *more])}" if shown else ""
        return f"{_FIELDS[branch]}: {count} chunk{'s' * (count > 1)}{weights}"

    def unread(self, state: RequestState) -> list[RequestWarning]:
        """Warnings about tokens that don't fit into what an encoder reads."""
        params = state.params
        branches = [branch for branch in self._branches(params) if branch in _FIELDS]
        return [told for branch in branches for told in self._unread(params, branch)]

    def _unread(self, params: SamplingParams, branch: str) -> Iterator[RequestWarning]:
        text, syntax = text_of(params, branch), params.prompt_syntax
        cuts = {name: each.cut(text, syntax) for name, each in self.in_chunks.items()}
        length = params.max_sequence_length
        for name, encoder in self.in_one.items():
            cuts[name] = encoder.cut(self.cleaned(text), syntax, length)
        found = {name: cut for name, cut in cuts.items() if cut is not None}
        if not found:
            return
        worst = max(found, key=lambda name: found[name].lost)
        by_chunk = worst in self.in_chunks
        instead = (
            "prompt_syntax=a1111 reads all" if by_chunk else self._longer(found[worst], length)
        )
        yield _cut_warning(_FIELDS[branch], found, worst, instead)

    def _longer(self, cut: Cut, length: int | None) -> str:
        """Advice against a cut at the request's own length."""
        enough, most = cut.limit + cut.lost, self._longest()
        fits = cut.limit == length and most is not None and enough <= most
        return f"max_sequence_length={enough} reads all" if fits else ""


def _cut_warning(field: str, cuts: Mapping[str, Cut], worst: str, instead: str) -> RequestWarning:
    """One warning for all encoders that cut a text, with what the `worst` of them loses."""
    limit, lost, text = cuts[worst]
    words = " ".join(text.split())
    shown = words if len(words) <= _SHOWN_WORDS else f"{words[: _SHOWN_WORDS - 1]}…"
    what = f"{field}: cut at {limit} tokens by {' and '.join(cuts)}"
    told = f"{what}: the last {lost} are not read, {shown!r}"
    return RequestWarning("prompt_cut", field, f"{told}; {instead}" if instead else told)


_FIELDS = {"positive": "prompt", "negative": "negative_prompt"}
