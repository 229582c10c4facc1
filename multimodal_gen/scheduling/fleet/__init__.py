"""Chooses an engine for each request, of many engines behind one front. Pure: no clock is read,
no socket is touched."""
