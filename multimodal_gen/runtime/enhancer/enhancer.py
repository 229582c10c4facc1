"""Rewrites prompts by a language model, some tokens at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from transformers import DynamicCache, GenerationConfig

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import ENHANCED_TOKENS
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.enhancer.instruction import as_prompt, ids_of
from multimodal_gen.runtime.stages.request_state import Draft, RequestState

ENHANCER = "prompt_enhancer"
"""Its name among the components of a pipeline that have a place."""
_REMEMBERED = 256
"""Prompts whose texts are kept."""


class PromptEnhancer:
    """A tokenizer and a causal language model of transformers.

    The likeliest token is taken each time, so that the same prompt becomes the same text. Requests
    with the same prompt share a draft, and later ones have its text at once.
    """

    def __init__(self, tokenizer: Any, module: Any, ends: list[int]) -> None:
        """`ends`: tokens that end an answer."""
        self.module = module
        self._tokenizer = tokenizer
        self._ends = ends
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._drafts: WeakValueDictionary[str, Draft] = WeakValueDictionary()

    def enhance(
        self, state: RequestState, tokens: int, hold: Callable[[], None]
    ) -> tuple[int, str | None]:
        """Write so many tokens for a request, or fewer, up to the end: then its prompt is the text.

        Returns how many they were, and the text once it is known. `hold` brings the model to its
        device, and is called if that is needed. Raises InvalidRequest.
        """
        if state.revised_prompt is not None:  # by a plan before this one
            return 0, state.revised_prompt
        prompt = state.params.prompt
        if (text := self._texts.get(prompt)) is None:
            hold()
            state.draft = state.draft or self.draft(prompt)
            tokens = self.go_on(prompt, state.draft, tokens)
            text = state.draft.text
        else:
            tokens = 0
            self._texts.move_to_end(prompt)
        if text is not None:
            state.revise(text)
        return tokens, text

    def draft(self, prompt: str) -> Draft:
        """Begin the text for a prompt, or join the one that is being written. Raises
        InvalidRequest for a prompt that is too long for the model."""
        draft = self._drafts.get(prompt)
        if draft is None:
            ids = ids_of(self._tokenizer, prompt)
            longest = getattr(self.module.config, "max_position_embeddings", None)
            if longest is not None and len(ids) + ENHANCED_TOKENS > longest:
                room = longest - ENHANCED_TOKENS
                allowed = f"is too long for enhance_prompt: {len(ids)} tokens of at most {room}"
                raise InvalidRequest("prompt", prompt, allowed)
            told = copied(torch.tensor([ids]), self.module.device)
            draft = self._drafts[prompt] = Draft(told, DynamicCache(config=self.module.config))
        return draft

    @torch.inference_mode()
    def go_on(self, prompt: str, draft: Draft, tokens: int) -> int:
        """Write so many tokens, or up to the end; returns how many it were."""
        if draft.text is not None:
            return 0
        before = draft.written
        draft.ids = self.module.generate(
            draft.ids,
            attention_mask=torch.ones_like(draft.ids),
            past_key_values=draft.cache,
            generation_config=GenerationConfig(
                max_new_tokens=min(tokens, ENHANCED_TOKENS - before),
                do_sample=False,
                eos_token_id=self._ends or None,
                pad_token_id=self._tokenizer.pad_token_id or 0,
            ),
        )
        answer = draft.ids[0, draft.asked :].tolist()
        if len(answer) >= ENHANCED_TOKENS or answer[-1] in self._ends:
            said = self._tokenizer.decode(answer, skip_special_tokens=True)
            draft.text = as_prompt(said) or prompt
            self._remember(prompt, draft.text)
        return len(answer) - before

    def _remember(self, prompt: str, text: str) -> None:
        self._texts[prompt] = text
        if len(self._texts) > _REMEMBERED:
            self._texts.popitem(last=False)
