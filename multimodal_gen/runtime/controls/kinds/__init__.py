"""The kinds of controls, each in a file with its `KIND`."""
