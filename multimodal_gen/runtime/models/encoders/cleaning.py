"""What Wan's reference does to a prompt before it is tokenised."""

from __future__ import annotations

import html

import ftfy


def clean(text: str) -> str:
    """Repaired encoding, HTML entities resolved (also doubly escaped ones), single spaces."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())
