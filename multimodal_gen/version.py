"""The package's version, where every module can import it without a circle."""

__version__ = "0.1.0"
