"""The process that decides what the ranks of an engine do next; it does not load torch."""
