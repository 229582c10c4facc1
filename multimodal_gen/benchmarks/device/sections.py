"""Sections of the benchmark, in the order in which they run, each with its time."""

from __future__ import annotations

from collections.abc import Mapping

DEVICE = "device"
"""The first section, which only describes the device; without it there are no others."""
SECTIONS: Mapping[str, float] = {
    "pictures": 60,
    "recovery": 40,
    "products": 40,
    "streamed": 60,
    "graphs": 60,
    "flux": 100,
    "z_image": 80,
    "wan": 120,
    "qwen_image": 120,
    "cancel": 60,
}
"""Seconds after which each is ended; what it measured until then counts."""
MODELS = ("flux", "z_image", "wan", "qwen_image")
"""Sections that are a model each."""
WHOLE_S = 570.0
"""Seconds for everything."""
