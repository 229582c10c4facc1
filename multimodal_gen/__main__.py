"""`python -m multimodal_gen` is `multimodal-gen`."""

import sys

from multimodal_gen.entrypoints.cli.__main__ import run

if __name__ == "__main__":
    sys.exit(run())
