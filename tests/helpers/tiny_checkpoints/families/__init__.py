"""What tests know of each family: tiny checkpoints, and a small request for each of its tasks.

A module of this folder is found where it lies. It has

- `CHECKPOINTS`, by name: every test of tiny checkpoints looks at them;
- `VARIANTS`, if any: what differs from those in a way that only tests of their family look at;
- `CASES`: of each cell one.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..case import Case, Cell
from ..checkpoint import TinyCheckpoint

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]


def _gather(kind: str) -> dict[Any, Any]:
    rows = [row for module in _MODULES for row in getattr(module, kind, {}).items()]
    gathered = dict(rows)
    assert len(gathered) == len(rows), f"two modules have {kind} of one name"
    return gathered


CHECKPOINTS: dict[str, TinyCheckpoint] = _gather("CHECKPOINTS")
VARIANTS: dict[str, TinyCheckpoint] = _gather("VARIANTS")
CASES: dict[Cell, Case] = _gather("CASES")
