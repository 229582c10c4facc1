"""Latents to pixels, on diffusers' autoencoders."""
