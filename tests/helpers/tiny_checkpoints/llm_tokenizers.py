"""Tokenizers of the language models that encode prompts, laid down by rule like the others."""

from collections.abc import Iterable
from typing import Any

from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import GemmaTokenizer, PreTrainedTokenizerFast

from .tokenizers import ASCII, WORDS

_LLAMA_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_SPECIALS = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<pad>",
)
_SPACE = "Ġ"  # byte-level BPE's stand-in for a space
_MISTRAL_SPECIALS = (
    *("<unk>", "<s>", "</s>", "<pad>"),
    *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "[IMG]"),
)
_MISTRAL_TEMPLATE = """
{{- bos_token }}
{%- for message in messages %}
    {%- set mark = 'SYSTEM_PROMPT' if message.role == 'system' else 'INST' %}
    {{- '[' + mark + ']' + message.content[0].text + '[/' + mark + ']' }}
{%- endfor %}
"""
_GEMMA_SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Llama 3's: of HunyuanVideo's template, 95 tokens precede the prompt."""
    template = DEFAULT_PROMPT_TEMPLATE["template"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys([*template.translate(_punctuation_to_spaces()).split(), *WORDS])
    # Those with a space come first: so no pair inside them is merged before they are.
    merges = _merges([_SPACE + word for word in words] + ["system", "user", "Describe", "ĊĊ"])
    pieces = [*letters, *(left + right for left, right in merges), *_LLAMA_SPECIALS]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bos = _LLAMA_SPECIALS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, vocab[bos])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token="<|eot_id|>",
        pad_token="<pad>",
        additional_special_tokens=list(_LLAMA_SPECIALS[1:3]),
        padding_side="right",
        model_max_length=131072,
    )


class MistralProcessor(PreTrainedTokenizerFast):
    """In place of a PixtralProcessor, which can't be made where there is no torchvision: for texts,
    both do the same."""


def mistral_tokenizer() -> MistralProcessor:
    """Byte-level BPE as Mistral 3's, which pads on the left; words are one token after a space, and
    FLUX.2's message of the system is one, too: so prompts have a weight beside it."""
    merges = _merges(_SPACE + word for word in WORDS)
    pieces = [*_MISTRAL_SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [left + right for left, right in merges]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bos = _MISTRAL_SPECIALS[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, vocab[bos])]
    )
    made = MistralProcessor(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token=bos,
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=list(_MISTRAL_SPECIALS[4:]),
        padding_side="left",
        model_max_length=131072,
    )
    made.chat_template = _MISTRAL_TEMPLATE
    made.add_tokens([SYSTEM_MESSAGE])
    return made


def gemma_tokenizer() -> GemmaTokenizer:
    """BPE with bytes to fall back on, as Gemma's; words are one token after a space."""
    merges: Any = _merges("▁" + word for word in WORDS)
    pieces = [*_GEMMA_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *ASCII]
    pieces += [left + right for left, right in merges]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True, model_max_length=8192)


def _punctuation_to_spaces() -> dict[int, str]:
    return {code: " " for code in range(128) if not chr(code).isalnum()}


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges that build each word from its left; a prefix that is shared comes once."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        for end in range(1, len(word)):
            merges[word[:end], word[end]] = None
    return list(merges)
