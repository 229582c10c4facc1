"""LoRAs of requests."""
