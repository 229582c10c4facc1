"""The requests that a command asks for."""
