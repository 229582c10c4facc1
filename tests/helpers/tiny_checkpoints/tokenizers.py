"""Tokenizers of the real classes with small vocabularies, laid down by rule.

The trainers of the tokenizers library give other merges from run to run, so none is used.
"""

from typing import Any

from transformers import CLIPTokenizer, T5Tokenizer

_TEXT = """
a the of in on and photo picture red green blue yellow black white heart star circle square
cat dog bird horse pizza apple rocket house tree sea mountain astronaut riding walking flying
blurry ugly low high quality small big
"""
WORDS = _TEXT.split()
ASCII = [chr(code) for code in range(ord("!"), ord("~") + 1)]
WORD_END = "</w>"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad_token: str = EOS) -> CLIPTokenizer:
    """Byte-level BPE laid out as CLIP's: bytes, bytes that end a word, merges, then BOS and EOS.

    "!" has id 0 and EOS the highest, which SDXL's padding and CLIP's pooling rely on.
    """
    merges: Any = _clip_merges()  # pairs, where the annotation of CLIPTokenizer has strings
    letters = _byte_letters()
    pieces = letters + [letter + WORD_END for letter in letters]
    pieces += [left + right for left, right in merges] + [BOS, EOS]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        pad_token=pad_token,
        model_max_length=77,
    )


def t5_tokenizer() -> T5Tokenizer:
    """Unigram laid out as T5's: pad 0, EOS 1, unknown 2, pieces, then 100 sentinels."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [("▁" + word, -2.0 - 0.01 * rank) for rank, word in enumerate(WORDS)]
    pieces += [("▁a", -2.0)]
    pieces += [(letter, -8.0 - 0.01 * rank) for rank, letter in enumerate(ASCII)]
    pieces += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(100))]
    return T5Tokenizer(vocab=pieces, model_max_length=512)


def _byte_letters() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in the order of GPT-2's `bytes_to_unicode`."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(others)]


def _clip_merges() -> list[tuple[str, str]]:
    """Merges that build each of `WORDS` from its left; a prefix that is shared comes once."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        letters = [*word[:-1], word[-1] + WORD_END]
        left = letters[0]
        for letter in letters[1:]:
            merges[left, letter] = None
            left += letter
    return list(merges)
