"""`multimodal-gen bench`: measures this engine and stock diffusers alternately in one run."""
