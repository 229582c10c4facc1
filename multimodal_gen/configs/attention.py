"""Names of the attention backends: the engine's backend modules, listed without importing them."""

from __future__ import annotations

from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal

_FOLDER = Path(__file__).parent.parent / "runtime" / "layers" / "attention" / "backends"

ATTENTION_BACKENDS = tuple(sorted(module.name for module in iter_modules([str(_FOLDER)])))

if TYPE_CHECKING:
    AttentionBackend = str
else:
    AttentionBackend = Literal[("auto", *ATTENTION_BACKENDS)]
