"""Writes the types that are derived from the declared sampling parameters.

A type checker can't compute them, so they are written to files. Run
`python -m multimodal_gen.configs.write_types` after a change of SamplingParams.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.parameters import SamplingParameter
from multimodal_gen.configs.sampling_params import PARAMETERS

_KEYWORDS_HEAD = '''\
"""The keywords of `DiffusionGenerator`, written by configs/write_types.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from multimodal_gen.configs.control.choice import ControlLike
from multimodal_gen.configs.lora.choice import LoraLike
from multimodal_gen.configs.second_pass import UpscaleLike
from multimodal_gen.configs.user_path import UserPath
from multimodal_gen.entrypoints.python.inputs import InputKeywords


class SamplingKeywords(InputKeywords, total=False):
    """Pictures, and the fields of SamplingParams except the prompt."""

'''
_ENGINE_HEAD = '''\
"""The keywords of `from_pretrained`, written by configs/write_types.py."""

from __future__ import annotations

from typing import Literal, TypedDict

from multimodal_gen.configs.user_path import UserPath


class EngineKeywords(TypedDict, total=False):
    """The fields of EngineArgs except the path of the model."""

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


def engine_module() -> str:
    """Return the text of entrypoints/python/engine_keywords.py."""
    texts, kinds = dict(_attribute_docs(EngineArgs)), get_type_hints(EngineArgs)
    return _ENGINE_HEAD + "".join(
        _entry(name, _engine_type(name, kinds[name]), text)
        for name, text in texts.items()
        if name != "model_path"
    )


def defaults_module() -> str:
    """Return the text of messages/model_defaults.py."""
    declared = (each for each in PARAMETERS.values() if each.spec.model_default)
    return _DEFAULTS_HEAD + "".join(map(_default, declared)) + _DEFAULTS_TAIL


FILES: Mapping[str, Callable[[], str]] = {
    "entrypoints/python/sampling_keywords.py": keywords_module,
    "entrypoints/python/engine_keywords.py": engine_module,
    "messages/model_defaults.py": defaults_module,
}
"""Paths in the package, and the functions that return their text."""


def _keyword(parameter: SamplingParameter) -> str:
    kind = parameter.spec.keyword_type or _type(parameter)
    if parameter.is_optional:
        kind += " | None"
    return _entry(parameter.name, kind, parameter.summary)


def _entry(name: str, kind: str, text: str) -> str:
    lines = "\n".join(textwrap.wrap(f'"""{text}"""', 96))
    return textwrap.indent(f"{name}: {kind}\n{lines}\n", " " * 4)


def _attribute_docs(declaration: type) -> Iterator[tuple[str, str]]:
    """Fields of a class with the text that follows each in its source."""
    (body,) = ast.parse(inspect.getsource(declaration)).body
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(shown))),
            ):
                yield name, " ".join(shown.split())


def _engine_type(name: str, kind: Any) -> str:
    is_path = name.endswith(("_path", "_dir")) or name == "prompt_enhancer"
    return _source(kind).replace("str", "UserPath") if is_path else _source(kind)


def _source(kind: Any) -> str:
    """Return the source text of a type."""
    if get_origin(kind) is Literal:
        return f"Literal[{_quoted(get_args(kind))}]"
    if isinstance(kind, UnionType) or type(None) in get_args(kind):
        return " | ".join(map(_source, get_args(kind)))
    if kind is NoneType:
        return "None"
    return str(kind) if get_args(kind) else str(kind.__name__)


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _default(parameter: SamplingParameter) -> str:
    spec, kind = parameter.spec, _type(parameter)
    if spec.fallback is not None:
        kind += f" = {spec.fallback!r}"
    elif not spec.required:
        kind += " | None = None"
    return f"    {parameter.name}: {kind}\n"


def _type(parameter: SamplingParameter) -> str:
    """Return the source text of a type without None."""
    choices = parameter.choices
    return f"Literal[{_quoted(choices)}]" if choices else str(parameter.kind.__name__)


def main() -> None:
    """Write the files into the package."""
    package = Path(__file__).parent.parent
    for path, text in FILES.items():
        (package / path).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
