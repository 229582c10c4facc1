"""Forms of checkpoints that the tests compare, by the small checkpoint that is tried."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache

from library_tries import TRIALS
from places import ROOT
from published_layouts import LAYOUTS
from single_files import ORIGINAL
from tiny_checkpoints.families import CASES
from whole_files import ENCODERS

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.families.published import Form

DIFFUSERS_NAMES = (*ORIGINAL, "sd15", "sdxl", "qwenimage", "cogvideox")
"""Denoisers that test_single_files.py reads under diffusers' names, from one file."""
WITH_FILES = {family.name for family in FAMILIES if family.single_files}
GGUF = {
    **{name: case.checkpoint for (name, _), case in reversed(CASES.items()) if name in WITH_FILES},
    "flux2": "flux2-klein",
    "wan": "wan",
}
"""A tiny checkpoint of each family that has single files: its first, or one whose original names
`ORIGINAL` has. test_single_files.py reads them from GGUF."""
QUANTIZED = (*ORIGINAL, "sd15")
"""Denoisers that test_quantized_checkpoints.py reads with the scales of their weights."""
_COMPARING = ("test_parity_*.py", "test_modular.py", "test_fallback.py")


@cache
def _compared() -> set[str]:
    """Checkpoints that a test compares with diffusers as a folder."""
    tests = [path for each in _COMPARING for path in (ROOT / "tests" / "models").glob(each)]
    named = {name for path in tests for name in re.findall(r'"([\w.-]+)"', path.read_text())}
    return {case.checkpoint for case in CASES.values()} | named | set(TRIALS)


def tried(model: str) -> tuple[Form, ...]:
    """Forms of a published model's layout that were tried."""
    layout = LAYOUTS[model]
    seen: Mapping[Form, Collection[str]] = {
        "folder": _compared(),
        "original": ORIGINAL,
        "diffusers": DIFFUSERS_NAMES,
        "whole file": ENCODERS,
        "GGUF": GGUF.values(),
        "quantized": QUANTIZED,
    }
    alike = {layout.tiny, layout.also}
    return tuple(form for form, names in seen.items() if alike & {*names})
