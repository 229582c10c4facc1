"""A narrow Qwen3 and its tokenizer: byte-level BPE with the chat template that Qwen3 has."""

from typing import Any

from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from .encoders import WIDTH
from .tokenizers import WORDS

_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
_SPACE = "Ġ"  # byte-level BPE's stand-in for a space
_TEMPLATE = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def qwen3_tokenizer() -> Qwen2Tokenizer:
    words = [*(_SPACE + word for word in WORDS), "user", "assistant", "ĊĊ"]
    merges: Any = list(
        dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word)))
    )
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [left + right for left, right in merges]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
    )
    tokenizer.add_tokens([*_SPECIALS], special_tokens=True)
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def qwen3(layers: int, width: int = WIDTH) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(qwen3_tokenizer()),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
    )
