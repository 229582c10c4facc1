"""Native diffusion transformers, one file a family, with the names of its checkpoints beside it."""
