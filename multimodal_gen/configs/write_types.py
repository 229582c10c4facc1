"""Writes the types that are derived from the declared sampling parameters.

A type checker can't compute them, so they are written to files. Run
`python -m multimodal_gen.configs.write_types` after a change of SamplingParams.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from multimodal_gen.configs.parameters import SamplingParameter
from multimodal_gen.configs.sampling_params import PARAMETERS

_KEYWORDS_HEAD = '''\
"""The keywords of `DiffusionGenerator`, written by configs/write_types.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from multimodal_gen.configs.control.choice import ControlLike
from multimodal_gen.configs.lora.choice import LoraLike
from multimodal_gen.configs.second_pass import UpscaleLike


class SamplingKeywords(TypedDict, total=False):
    """The fields of SamplingParams except the prompt."""

'''
_DEFAULTS_HEAD = '''\
"""The defaults of a model, written by configs/write_types.py."""

from __future__ import annotations

import msgspec


class Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's defaults for unset sampling parameters. None: there is no default."""

'''
_DEFAULTS_TAIL = '''\
    inpainting_strength: float | None = None
    """Default of strength for a request with a mask."""
'''


def keywords_module() -> str:
    """Return the text of entrypoints/python/sampling_keywords.py."""
    keywords = (each for name, each in PARAMETERS.items() if name != "prompt")
    return _KEYWORDS_HEAD + "".join(map(_keyword, keywords))


def defaults_module() -> str:
    """Return the text of messages/model_defaults.py."""
    declared = (each for each in PARAMETERS.values() if each.spec.model_default)
    return _DEFAULTS_HEAD + "".join(map(_default, declared)) + _DEFAULTS_TAIL


FILES: Mapping[str, Callable[[], str]] = {
    "entrypoints/python/sampling_keywords.py": keywords_module,
    "messages/model_defaults.py": defaults_module,
}
"""Paths in the package, and the functions that return their text."""


def _keyword(parameter: SamplingParameter) -> str:
    kind = parameter.spec.keyword_type or _type(parameter)
    if parameter.is_optional:
        kind += " | None"
    text = "\n".join(textwrap.wrap(f'"""{parameter.summary}"""', 96))
    return textwrap.indent(f"{parameter.name}: {kind}\n{text}\n", " " * 4)


def _default(parameter: SamplingParameter) -> str:
    spec, kind = parameter.spec, _type(parameter)
    if spec.fallback is not None:
        kind += f" = {spec.fallback!r}"
    elif not spec.required:
        kind += " | None = None"
    return f"    {parameter.name}: {kind}\n"


def _type(parameter: SamplingParameter) -> str:
    """Return the source text of a type without None."""
    choices = ", ".join(f'"{choice}"' for choice in parameter.choices)
    return f"Literal[{choices}]" if choices else str(parameter.kind.__name__)


def main() -> None:
    """Write the files into the package."""
    package = Path(__file__).parent.parent
    for path, text in FILES.items():
        (package / path).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
