"""Denoisers of published sizes with random weights, against those of diffusers on a CPU."""
