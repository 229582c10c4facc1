"""The web UI's syntax within prompts: LoRAs and weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.request_warning import RequestWarning

_TAG = re.compile(r" ?<(lora|lyco|hypernet):([^<>]*)>")
_WEIGHT = re.compile(r"(?<!\\)\([^()]*(?<!\\)\)|(?<!\\)\[[^\[\]]*(?<!\\)\]|\bAND\b|\bBREAK\b")

_CHANGE = re.compile(r"(?<!\\)\[[^\[\]:|]*[:|][^\[\]]*(?<!\\)\]|\bAND\b")
"""Prompts that change during a request, and several of them."""


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt without its tags, the LoRAs that these name, and what of it has no effect."""

    text: str
    loras: tuple[LoraChoice, ...]
    warnings: list[RequestWarning]


def parse_prompt(prompt: str, *, weighted: bool) -> ParsedPrompt:
    """Split a prompt into its text and the LoRAs that it names; `weighted` as for
    `without_effect`. Raises InvalidRequest."""
    loras: list[LoraChoice] = []
    warnings: list[RequestWarning] = []
    for kind, tag in _TAG.findall(prompt):
        if kind == "hypernet":
            warnings.append(_idle(f"<hypernet:{_shown(tag)}> has no effect on this server"))
            continue
        lora, idle = _lora(tag)
        loras.append(lora)
        warnings += [_idle(f"<{kind}:{_shown(tag)}>: {what}") for what in idle]
    text = _TAG.sub("", prompt)
    return ParsedPrompt(text, tuple(loras), [*warnings, *without_effect(text, "prompt", weighted)])


def without_effect(text: str, field: str, weighted: bool) -> list[RequestWarning]:
    """Return a warning if the web UI would not read a part of the text as text; `weighted`: nor
    does the model where that gives weights."""
    found = (_CHANGE if weighted else _WEIGHT).search(text)
    if found is None:
        return []
    why = "prompts don't change or combine" if weighted else "weights have no effect"
    text = f"{field}: {_shown(found[0])} is read as text: {why} on this server"
    return [RequestWarning("read_as_text", field, text)]


def number(text: str) -> int | float | str:
    """Parse a number and keep its type: files record 7 and 7.0 differently."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return text
    is_number = isinstance(parsed, int | float) and not isinstance(parsed, bool)
    return parsed if is_number else text


def _lora(tag: str) -> tuple[LoraChoice, list[str]]:
    """Parse NAME[:TEXT_ENCODER_SCALE[:UNET_SCALE]], where scales may be named `te` and `unet`.
    `target`, `start` and `stop` are ours: the web UI ignores names that it does not know."""
    name, *given = tag.split(":")
    named = dict(part.split("=", 1) for part in given if "=" in part)
    scales = [part or "1.0" for part in given if "=" not in part]
    encoder = number(named.pop("te", scales[0] if scales else "1.0"))
    scale = number(named.pop("unet", scales[1] if len(scales) > 1 else str(encoder)))
    target = named.pop("target", None)
    start, stop = number(named.pop("start", "0.0")), number(named.pop("stop", "1.0"))
    if not name or any(isinstance(each, str) for each in (encoder, scale, start, stop)):
        raise InvalidRequest("prompt", f"<lora:{tag}>", "must be <lora:NAME:SCALE>")
    idle = [f"{each} has no effect on this server" for each in named]
    if len(scales) > 2:
        idle.append("its third number has no effect on this server")
    if encoder != scale:
        idle.append(f"the text encoder's scale is {scale} as well")
    return LoraChoice.of(
        {"name": name, "scale": scale, "target": target, "start": start, "stop": stop}
    ), idle


def _idle(what: str) -> RequestWarning:
    return RequestWarning("no_effect", "prompt", f"prompt: {what}")


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
