"""Input images, as the web UI prepares them."""
