"""`-` on the command line: standard input or output, in place of a prompt or a file."""

from __future__ import annotations

from collections.abc import Sequence

STANDARD = "-"
_VALUED = ("--prompt", "--prompt-path", "--output-path", "-o", "--image-path", "--mask-path")


def with_hyphens_as_values(tokens: Sequence[str]) -> list[str]:
    """Rewrite `-o -` as `-o=-`, and a `-` on its own as a prompt, since the parser takes it for an
    option without a name."""
    written: list[str] = []
    for index, token in enumerate(tokens):
        if token == "--":
            return [*written, *tokens[index:]]
        if token != STANDARD:
            written.append(token)
        elif written and written[-1] in _VALUED:
            written[-1] += f"={STANDARD}"
        else:
            written.append(f"--prompt={STANDARD}")
    return written
