"""Controls: networks of their own that a picture steers, for single rows of a batch."""
