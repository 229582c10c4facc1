"""Tiny random checkpoints in the diffusers layout, and diffusers' own result on them.

`build` writes one of `NAMES` to a folder in well under a second; `reference` runs the stock
pipeline on such a folder. Weights are functions of (seed, component, parameter name) alone, so two
builds are equal byte for byte in any process.
"""

import diffusers
import transformers

from .build import NAMES, build
from .oracle import Reference, reference, stock_pipeline

__all__ = ["NAMES", "Reference", "build", "reference", "stock_pipeline"]

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
