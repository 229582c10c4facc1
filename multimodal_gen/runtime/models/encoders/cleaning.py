"""Cleans prompts before tokenisation, as Wan's reference does."""

from __future__ import annotations

import html

import ftfy


def clean(text: str) -> str:
    """Fix the encoding, resolve HTML entities (also doubly escaped ones), collapse spaces."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())
