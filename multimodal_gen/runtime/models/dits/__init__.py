"""Native diffusion transformers, one folder per family, with the names of its checkpoints."""
