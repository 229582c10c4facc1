"""A language model that rewrites prompts."""
