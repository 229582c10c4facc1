"""The operator's controls, as files."""
