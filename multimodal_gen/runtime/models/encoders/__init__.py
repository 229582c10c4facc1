"""Text encoders of transformers, and a cache of their results."""
