"""Names that the authors of a model give to the tensors of its VAE.

Each function converts them to diffusers' names; those that are diffusers' already stay.
"""
