"""Text encoders of transformers, and the cache of what they gave."""
