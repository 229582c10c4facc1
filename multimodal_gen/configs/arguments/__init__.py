"""The groups of server arguments, each with the checks of its values."""
