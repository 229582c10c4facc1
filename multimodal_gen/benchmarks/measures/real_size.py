"""Measures in processes of their own: denoisers of real sizes, and options for this CPU."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from multimodal_gen.benchmarks.report import Figure
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.launch.child_environment import child_environment

_MODULE = "multimodal_gen.benchmarks.real_size"
_CASES = (
    ("sd15", "float32"),
    ("sdxl", "bfloat16"),
    ("z_image", "float32"),
    ("z_image", "bfloat16"),
    ("flux", "bfloat16"),
    ("wan", "float32"),
)


def real_size(session: Session) -> list[Figure]:
    """One evaluation of each denoiser against diffusers, one denoiser after the other."""
    figures: list[Figure] = []
    for name, dtype in _CASES:
        session.say(f"real size: {name} in {dtype}")
        figures += _measured(name, dtype, session.repeats)
    return figures


def options(session: Session) -> list[Figure]:
    """Times of products with options that make a CPU faster."""
    session.say("options: products of matrices")
    return _measured("products", "float32", session.repeats)


def _measured(name: str, dtype: str, repeats: int) -> list[Figure]:
    command = [sys.executable, "-m", _MODULE, name, dtype, str(repeats)]
    done = subprocess.run(command, env=child_environment(), stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=list[Figure])
