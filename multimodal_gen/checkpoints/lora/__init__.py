"""The operator's LoRA files."""
