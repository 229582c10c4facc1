"""Places of weights: on the device, on the host between phases, or streamed block by block."""
