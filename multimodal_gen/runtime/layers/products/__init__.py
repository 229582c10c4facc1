"""Products of inputs and weights, by the fastest kernel of the device."""
