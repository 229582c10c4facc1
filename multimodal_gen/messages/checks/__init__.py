"""Checks of requests by subject, and what they say; validation.py runs them."""
