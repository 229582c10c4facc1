"""A timeline of one request in a real rank."""
