"""Decodes latents to pixels, with diffusers' autoencoders."""
