"""Numerical solvers, one per request, for all kinds of prediction, on diffusers' scheduler
classes."""
