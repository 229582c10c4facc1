"""Pages of the server's own: HTML whose parts stand in files beside it, sent as one."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib import resources

_STYLE = re.compile(r'<link rel="stylesheet" href="([\w./-]+)">')
_SCRIPT = re.compile(r'<script src="([\w./-]+)"></script>')
_SPARE = re.compile(r"^(?:[ \t]*//.*\n|[ \t]+|\n)|  // [^\"'`\n]*$", re.MULTILINE)
"""Indentation, empty lines, and comments at the end of lines or on lines of their own."""
_SPARE_IN_STYLE = re.compile(r"(?<=[{};:,>])\s+|\s+(?=[{}>])|/\*.*?\*/")
"""Spaces that separate nothing, and comments."""
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def page_of(folder: str, constants: Mapping[str, str] | None = None) -> str:
    """Return `assets/<folder>/index.html` with its styles and scripts inline; those that pages
    share stand in `assets`.

    `constants`: JSON by the name of a constant that a script declares as `const NAME = {};`.
    """
    home = resources.files("multimodal_gen") / "assets" / folder

    def part(name: str) -> str:
        return _SPARE.sub("", (home / name).read_text("utf-8"))

    def style(name: str) -> str:
        return _SPARE_IN_STYLE.sub("", (home / name).read_text("utf-8"))

    html = _STYLE.sub(lambda link: f"<style>{style(link[1])}</style>", part("index.html"))
    html = _SCRIPT.sub(lambda link: f"<script>\n{part(link[1])}</script>", html)
    for name, json_text in (constants or {}).items():
        # A script ends at "</", wherever that stands.
        html = html.replace(
            f"const {name} = {{}};", f"const {name} = {json_text};".replace("</", "<\\/")
        )
    return html


def page_headers(html: str) -> dict[str, str]:
    """Return headers that isolate a page, and that let browsers ask whether it has changed."""
    return {
        "content-security-policy": content_security_policy(html),
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
        "etag": f'"{hashlib.sha256(html.encode()).hexdigest()[:32]}"',
    }


def content_security_policy(html: str) -> str:
    """Return a policy that runs only the scripts in `html`, and contacts no other host."""
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[kind].append(f"'sha256-{digest}'")
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(allowed["script"]),
        "style-src": " ".join(allowed["style"]),
        "img-src": "'self' blob: data:",
        "media-src": "'self' blob:",
        "connect-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in policy.items())
