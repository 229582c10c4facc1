"""Folders of narrow language models for `--prompt-enhancer`, and what they make of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_checkpoints.qwen3 import qwen3, qwen3_tokenizer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from multimodal_gen.messages.plan import ENHANCED_TOKENS
from multimodal_gen.runtime.enhancer.instruction import as_prompt, ids_of


def qwen3_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    _told_apart(qwen3(layers=2)).save_pretrained(folder)
    qwen3_tokenizer().save_pretrained(folder)
    return folder


def gpt2_folder(folder: Path) -> Path:
    """Without a chat template, and with positions that are learnt."""
    torch.manual_seed(0)
    tokenizer = qwen3_tokenizer()
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 1024}
    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), **size, **ends)
    _told_apart(GPT2LMHeadModel(config)).save_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


def _told_apart(model: Any) -> Any:
    """The model with weights large enough for it to write more than one token again and again."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() == 2 and "emb" not in name and "wte" not in name:
                weights.mul_(30)
    return model


def expected(folder: Path, prompt: str) -> str:
    """The library's own answer, in one go."""
    tokenizer = qwen3_tokenizer()
    if "gpt2" in folder.name:
        tokenizer.chat_template = None
    ids = torch.tensor([ids_of(tokenizer, prompt)])
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=ENHANCED_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    answer = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    return as_prompt(answer) or prompt
