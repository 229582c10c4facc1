"""Calibration of step caches: which evaluations of a model must be computed."""
