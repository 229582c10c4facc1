"""What checkpoints say about prompts."""
