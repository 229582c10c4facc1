"""Kinds of pictures that controls for several kinds tell apart, by name."""

from __future__ import annotations

UNET_MODES = ("openpose", "depth", "hed", "canny", "normal", "segment", "tile", "repaint")
"""Of ControlNet++ for Stable Diffusion XL, in the order of the published network's numbers."""

FLUX_MODES = ("canny", "tile", "depth", "blur", "pose", "gray", "lq")
"""The first modes of the published unions for FLUX.1, in their order."""
