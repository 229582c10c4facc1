"""Simulates many engines behind one front, in simulated time: the router and the engines' policy
are those of production; only the device, the clock and the network are not."""
