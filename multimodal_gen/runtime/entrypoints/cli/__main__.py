"""`python -m multimodal_gen.runtime.entrypoints.cli` is `multimodal-gen`."""

import sys

from multimodal_gen.runtime.entrypoints.cli.main import main

sys.exit(main())
