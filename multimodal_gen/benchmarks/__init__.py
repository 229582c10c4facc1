"""`multimodal-gen bench`: this engine and stock diffusers, measured in turn in one run."""
