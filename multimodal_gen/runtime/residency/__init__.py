"""Where weights are: on the device, on the host between phases, or streamed block by block."""
