"""`python -m multimodal_gen.entrypoints.cli` is `multimodal-gen`."""

import sys

from multimodal_gen.entrypoints.cli.main import main

sys.exit(main())
