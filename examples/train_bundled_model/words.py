"""The tokenizer: byte-level BPE over the captions, one for both text encoders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

VOCABULARY = 2048
SPECIAL = ("<pad>", "</s>", "<unk>", "<s>")
PAD, END, BEGIN = 0, 1, 3
LONGEST = 77


def train_tokenizer(captions: Iterable[str]) -> Tokenizer:
    """Any text can be encoded: the alphabet is that of bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BEGIN), ("</s>", END)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, captions: list[str], length: int) -> list[list[int]]:
    """Token ids of each caption, cut or padded to `length`."""
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=PAD, pad_token="<pad>")
    return [encoding.ids for encoding in tokenizer.encode_batch(captions)]


def save(tokenizer: Tokenizer, folder: Path, length: int) -> None:
    """As transformers reads it; `length` is its model_max_length."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        # The name that all versions of transformers know.
        "tokenizer_class": "PreTrainedTokenizerFast",
        # Without it some versions overwrite what tokenizer.json says.
        "add_prefix_space": True,
        "model_max_length": length,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
