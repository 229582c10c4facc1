"""Names of text encoders' tensors in files."""
