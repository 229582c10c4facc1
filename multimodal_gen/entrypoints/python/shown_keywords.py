"""Lets help() and the completion of notebooks see the keywords that a TypedDict declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def showing_keywords(declaration: type, keywords: type) -> Callable[[Function], Function]:
    """Replace `**keywords` in the signature that a function shows by those of a TypedDict, with the
    defaults of a dataclass."""

    def show(function: Function) -> Function:
        shown = inspect.signature(function)
        own = [each for each in shown.parameters.values() if each.kind != Parameter.VAR_KEYWORD]
        further = [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=getattr(declaration, name, None),
                annotation=kind.__forward_arg__,
            )
            for name, kind in keywords.__annotations__.items()
            if name not in shown.parameters
        ]
        function.__signature__ = shown.replace(  # type: ignore[attr-defined]
            parameters=[*own, *further]
        )
        return function

    return show
