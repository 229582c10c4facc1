"""`python -m multimodal_gen.entrypoints.cli` is `multimodal-gen`."""

import os
import sys

# `python -m` puts the working folder first, where a downloaded checkpoint may hold a `queue.py`.
sys.path[:] = [folder for folder in sys.path if folder not in ("", os.getcwd())]

from multimodal_gen.entrypoints.cli.main import main  # noqa: E402

sys.exit(main())
